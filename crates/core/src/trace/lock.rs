//! The locks on tables that Postgres knows, weakest first.

use serde::{Deserialize, Serialize};

/// A lock on a table. The order is that of the documentation of Postgres (section "Explicit Locking").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// Reading.
    AccessShare,
    /// `SELECT … FOR UPDATE` and the like.
    RowShare,
    /// Writing rows.
    RowExclusive,
    /// `VACUUM`, `CREATE INDEX CONCURRENTLY`, some forms of `ALTER TABLE`.
    ShareUpdateExclusive,
    /// `CREATE INDEX`.
    Share,
    /// `CREATE TRIGGER`, foreign keys.
    ShareRowExclusive,
    /// `REFRESH MATERIALIZED VIEW CONCURRENTLY`.
    Exclusive,
    /// Most forms of `ALTER TABLE`, `DROP`, `TRUNCATE`.
    AccessExclusive,
}

impl Lock {
    const ALL: [Self; 8] = [
        Self::AccessShare,
        Self::RowShare,
        Self::RowExclusive,
        Self::ShareUpdateExclusive,
        Self::Share,
        Self::ShareRowExclusive,
        Self::Exclusive,
        Self::AccessExclusive,
    ];

    /// As statements and the documentation write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessShare => "ACCESS SHARE",
            Self::RowShare => "ROW SHARE",
            Self::RowExclusive => "ROW EXCLUSIVE",
            Self::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::Exclusive => "EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }

    /// From the name in `pg_locks` (`AccessShareLock`), or as statements write it.
    pub fn parse(name: &str) -> Option<Self> {
        let plain = |text: &str| text.replace(' ', "").to_ascii_lowercase();
        let wanted = plain(name);
        let wanted = wanted.strip_suffix("lock").unwrap_or(&wanted);
        Self::ALL.into_iter().find(|l| plain(l.as_str()) == wanted)
    }

    /// Whether nobody else can read while it is held.
    pub const fn blocks_reads(self) -> bool {
        matches!(self, Self::AccessExclusive)
    }

    /// Whether nobody else can write rows while it is held.
    pub const fn blocks_writes(self) -> bool {
        matches!(self, Self::Share | Self::ShareRowExclusive | Self::Exclusive | Self::AccessExclusive)
    }
}
