//! Backups: whether there are any, how old they are, and whether anybody could read them after a fire.

use super::Findings;
use switchback_core::config::Config;
use switchback_core::duration::human_ms;
use switchback_core::plan::Procedure;
use switchback_engine::backup::vault::Vault;
use switchback_engine::backup::{UNCONFIRMED, key_confirmed, newest};
use switchback_engine::engine::now_ms;
use switchback_engine::error::EngineError;
use switchback_engine::home::Home;

/// A backup this old, where the configuration does not say how often they are made, is told.
const OLD_MS: i64 = 7 * 86_400_000;

/// Looks at them.
pub fn look(home: &Home, config: &Config, findings: &mut Findings) {
    let Some(backup) = &config.backup else {
        findings.warning(
            "backup",
            "no backups are configured: generations lie on the same disk as production",
            "write into switchback.yaml:  backup: { repository: /srv/backup, every: 24h }",
        );
        return;
    };
    if let Err(e) = Vault::kept_key(home, backup) {
        findings.error("backup", &e);
        return;
    }
    if let Err(e) = ages(home, backup, findings) {
        findings.error("backup", &e);
    }
    if !key_confirmed(home, backup) {
        findings.warning("backup-key", UNCONFIRMED, "switchback backup key --confirm");
    }
}

fn ages(
    home: &Home,
    backup: &switchback_core::config::Backup,
    findings: &mut Findings,
) -> Result<(), EngineError> {
    let now = now_ms();
    let ago = |at: i64| human_ms(u64::try_from(now - at).unwrap_or(0));
    let late = |at: i64, every: Option<switchback_core::duration::Span>| {
        let most =
            every.map_or(OLD_MS, |e| i64::try_from(e.as_millis()).unwrap_or(i64::MAX).saturating_mul(2));
        now - at > most
    };
    match newest(home, Procedure::Backup)? {
        None => findings.warning("backup", "there is no backup yet", "switchback backup"),
        Some((at, _)) if late(at, backup.every) => {
            findings.warning("backup", format!("the newest backup is {} old", ago(at)), "switchback backup");
        }
        Some((at, _)) => findings.ok("backup", format!("the newest backup is {} old", ago(at))),
    }
    match newest(home, Procedure::Drill)? {
        None => {
            findings.warning(
                "drill",
                "no backup was ever brought back to see whether it works",
                "switchback drill restore",
            );
        }
        Some((at, _)) if backup.drill.is_some() && late(at, backup.drill) => {
            findings.warning(
                "drill",
                format!("the last drill was {} ago", ago(at)),
                "switchback drill restore",
            );
        }
        Some((at, _)) => {
            findings.ok("drill", format!("a backup was brought back {} ago, and worked", ago(at)));
        }
    }
    Ok(())
}
