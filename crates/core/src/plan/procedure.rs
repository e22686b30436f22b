//! The procedures: what kinds of run there are, and what each may touch.

use serde::{Deserialize, Serialize};

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Procedure {
    /// Try an upgrade on a clone.
    Rehearse,
    /// Try an upgrade in several steps on clones.
    Path,
    /// Time a migration at several sizes of the data, on clones.
    Scaling,
    /// Bring an upgrade to production.
    Promote,
    /// Return production to an earlier generation.
    Rollback,
    /// Return single services to the generation before, with their data; the others go on.
    ServiceRollback,
    /// Start production's current generation.
    Up,
    /// Stop production.
    Down,
    /// Make or start a staging environment.
    StagingUp,
    /// Bring production's present data into a staging environment.
    StagingSync,
    /// Bring back the data that a staging environment got last.
    StagingReset,
    /// Stop a staging environment.
    StagingStop,
    /// Remove a staging environment.
    StagingDown,
    /// Write a snapshot of production into the repository of backups.
    Backup,
    /// Bring a snapshot back into a sandbox, to see whether it can be.
    Drill,
    /// Try on clones whether production can return to the generation before.
    RollbackDrill,
    /// Switch production itself to a copy and back, to see whether and how fast it returns.
    ProductionDrill,
    /// Bring a snapshot back as production's next generation.
    Restore,
    /// Bring the writes made to an abandoned generation into production's next one.
    Carry,
    /// Export what was written to an abandoned generation, where its rollback could not.
    Export,
}

impl Procedure {
    /// The word used on the command line and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rehearse => "rehearse",
            Self::Path => "path",
            Self::Scaling => "scaling",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::ServiceRollback => "rollback --service",
            Self::Up => "up",
            Self::Down => "down",
            Self::StagingUp => "staging up",
            Self::StagingSync => "staging sync",
            Self::StagingReset => "staging reset",
            Self::StagingStop => "staging stop",
            Self::StagingDown => "staging down",
            Self::Backup => "backup",
            Self::Drill => "drill",
            Self::RollbackDrill => "drill rollback",
            Self::ProductionDrill => "drill rollback --production",
            Self::Restore => "restore",
            Self::Carry => "carry",
            Self::Export => "export",
        }
    }

    /// Whether it only reads production, and is no business of a rollback.
    pub fn is_aside(self) -> bool {
        self.is_staging()
            || matches!(
                self,
                Self::Rehearse
                    | Self::Path
                    | Self::Scaling
                    | Self::Backup
                    | Self::Drill
                    | Self::RollbackDrill
                    | Self::Export
            )
    }

    /// Whether it stops production in between.
    pub fn switches(self) -> bool {
        matches!(
            self,
            Self::Promote
                | Self::Rollback
                | Self::ServiceRollback
                | Self::Restore
                | Self::Carry
                | Self::ProductionDrill
        )
    }

    /// Whether it concerns a staging environment that a person keeps, and never production.
    pub fn is_staging(self) -> bool {
        matches!(
            self,
            Self::StagingUp | Self::StagingSync | Self::StagingReset | Self::StagingStop | Self::StagingDown
        )
    }

    /// The noun: "the promotion failed".
    pub fn noun(self) -> &'static str {
        match self {
            Self::Rehearse => "rehearsal",
            Self::Path => "path",
            Self::Scaling => "timing of the migration",
            Self::Promote => "promotion",
            Self::Rollback => "rollback",
            Self::ServiceRollback => "rollback of single services",
            Self::Up => "start",
            Self::Down => "stop",
            Self::StagingUp => "start of the environment",
            Self::StagingSync => "synchronisation of the environment",
            Self::StagingReset => "reset of the environment",
            Self::StagingStop => "stop of the environment",
            Self::StagingDown => "removal of the environment",
            Self::Backup => "backup",
            Self::Drill => "drill",
            Self::RollbackDrill => "rollback drill",
            Self::ProductionDrill => "rollback drill on production",
            Self::Restore => "restore",
            Self::Carry => "carrying of writes",
            Self::Export => "export of later writes",
        }
    }
}
