//! Named crash points for the crash matrix; compiled to nothing without the feature `faults`.
//!
//! `SWITCHBACK_FAULT=do:STEP:before|during|after` (or `undo:...`) kills the program there with SIGKILL;
//! `do:begin:before|after` is the moment in which a run is recorded, with the end of the trial that it ends.
//! `SWITCHBACK_FAULT_FAIL=do:STEP` makes a step fail after its effect. `SWITCHBACK_FAULT_REPEAT=1` performs
//! every step twice. `SWITCHBACK_FAULT_SLOW=NAME:MS` makes a moment between two looks so long.
//! `SWITCHBACK_GAP=NAME` switches one safeguard off, to see whether an acceptance run names it.

/// Where in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Its start is journaled; nothing is touched yet.
    Before,
    /// In the middle of its effect.
    During,
    /// The effect is complete; its end is not journaled yet.
    After,
}

/// Which way the run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Forward.
    Do,
    /// Backward.
    Undo,
}

/// A safeguard that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// Production's data is hidden from staging.
    Isolation,
    /// Personal data is masked.
    Masking,
    /// What is cloned is whole.
    Snapshot,
    /// Nothing of an environment is left.
    Disposal,
    /// What the keeper sees is recorded.
    History,
    /// Messages are sent.
    Notifications,
    /// Damage to a repository of backups is noticed.
    BackupCheck,
    /// The data before and after a migration is compared.
    Comparison,
    /// Two generations share no data.
    Apart,
    /// Migrations are traced.
    Trace,
    /// A promotion needs a certificate.
    Certificate,
    /// Certificates expire.
    Expiry,
    /// A rollback that takes too long gets no certificate.
    Budget,
    /// A trial that fails is rolled back.
    Trigger,
    /// What runs after a switch is looked at.
    ReadBack,
    /// Later writes are exported.
    Export,
    /// The checks run after a rollback.
    Validation,
    /// What was done is undone after a failure.
    Undo,
}

impl Gap {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Isolation,
        Self::Masking,
        Self::Snapshot,
        Self::Disposal,
        Self::History,
        Self::Notifications,
        Self::BackupCheck,
        Self::Comparison,
        Self::Apart,
        Self::Trace,
        Self::Certificate,
        Self::Expiry,
        Self::Budget,
        Self::Trigger,
        Self::ReadBack,
        Self::Export,
        Self::Validation,
        Self::Undo,
    ];

    /// Its name in `SWITCHBACK_GAP`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Isolation => "isolation",
            Self::Masking => "masking",
            Self::Snapshot => "snapshot",
            Self::Disposal => "disposal",
            Self::History => "history",
            Self::Notifications => "notifications",
            Self::BackupCheck => "backup-check",
            Self::Comparison => "comparison",
            Self::Apart => "apart",
            Self::Trace => "trace",
            Self::Certificate => "certificate",
            Self::Expiry => "expiry",
            Self::Budget => "budget",
            Self::Trigger => "trigger",
            Self::ReadBack => "read-back",
            Self::Export => "export",
            Self::Validation => "validation",
            Self::Undo => "undo",
        }
    }
}

#[cfg(feature = "faults")]
mod on {
    use super::{At, Gap, Way};

    fn name(way: Way) -> &'static str {
        match way {
            Way::Do => "do",
            Way::Undo => "undo",
        }
    }

    /// Kills the program if this point is the chosen one.
    pub fn point(way: Way, step: &str, at: At) {
        let when = match at {
            At::Before => "before",
            At::During => "during",
            At::After => "after",
        };
        if std::env::var("SWITCHBACK_FAULT").is_ok_and(|v| v == format!("{}:{step}:{when}", name(way))) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
    }

    /// Whether the step is to fail after its effect.
    pub fn fails(way: Way, step: &str) -> bool {
        std::env::var("SWITCHBACK_FAULT_FAIL").is_ok_and(|v| v == format!("{}:{step}", name(way)))
    }

    /// Waits, where a race is only milliseconds wide.
    pub fn slow(name: &str) {
        let wanted = std::env::var("SWITCHBACK_FAULT_SLOW").unwrap_or_default();
        if let Some(ms) = wanted.strip_prefix(name).and_then(|rest| rest.strip_prefix(':'))
            && let Ok(ms) = ms.parse()
        {
            std::thread::sleep(std::time::Duration::from_millis(ms));
        }
    }

    /// Whether every step is performed twice.
    pub fn repeats() -> bool {
        std::env::var_os("SWITCHBACK_FAULT_REPEAT").is_some()
    }

    /// Whether a safeguard is switched off.
    pub fn gap(gap: Gap) -> bool {
        std::env::var("SWITCHBACK_GAP").is_ok_and(|v| v == gap.as_str())
    }
}

#[cfg(not(feature = "faults"))]
mod on {
    use super::{At, Gap, Way};
    /// Does nothing.
    pub fn point(_: Way, _: &str, _: At) {}
    /// Never.
    pub fn fails(_: Way, _: &str) -> bool {
        false
    }
    /// Does not wait.
    pub fn slow(_: &str) {}
    /// Never.
    pub fn repeats() -> bool {
        false
    }
    /// Never.
    pub fn gap(_: Gap) -> bool {
        false
    }
}

pub use on::{fails, gap, point, repeats, slow};
