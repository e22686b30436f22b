//! What a clock starts: rehearse what changed, and promote it as far as the policy allows.

use super::run::Last;
use super::upgrade::{PromoteArgs, TargetArgs, carry_out_as, open, planning, promote, session, show_plan};
use super::{Exit, Global, Output, Trouble};
use clap::Args;
use serde_json::json;
use switchback_core::config::{Auto, Config};
use switchback_core::notify::Severity;
use switchback_core::plan::Plan;
use switchback_core::release::describe_change;
use switchback_engine::auto::{Found, is_news, look};
use switchback_engine::home::Home;
use switchback_engine::{notify, policy};

/// Options of auto.
#[derive(Debug, Clone, Args)]
pub struct AutoArgs {
    /// Say what there is to do, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Does what there is to do.
pub fn auto(global: &Global, args: &AutoArgs) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    // A clock's command is what comes back after a reboot. It needs no lock.
    if !args.dry_run {
        switchback_engine::watch::ensure_of_trial(&home)?;
    }
    let mut session = session(global, &home, "auto")?;
    session.require_settled()?;
    let mut found = planning(global, |stage| look(&session, &config, stage))?;
    if let Found::Rehearse(plan) = &found {
        if args.dry_run {
            return show_plan(global, plan);
        }
        let (exit, _) = carry_out_as(global, &home, &mut session, plan, &config, Last::IfNotDone)?;
        if exit != Exit::Done {
            let change = describe_change(&plan.from, &plan.to);
            tell_once(
                &home,
                &config,
                Severity::Bad,
                "rehearsal_refused",
                &format!("{change} does not pass its rehearsal"),
                plan,
            )?;
            return Ok(exit);
        }
        found = planning(global, |stage| look(&session, &config, stage))?;
    }
    let (plan, target) = match found {
        Found::Ready(plan, target) => (plan, target),
        Found::Nothing(why) => return nothing(global, &why),
        Found::Rehearse(_) => return nothing(global, "the rehearsal issued no certificate"),
    };
    let change = describe_change(&plan.from, &plan.to);
    if !config.promotion.auto.permits(&plan.from, &plan.to) {
        let title = format!("{change} passed its rehearsal and can be promoted");
        if config.promotion.auto == Auto::Never {
            return nothing(global, &format!("{title}: `switchback promote`"));
        }
        tell_once(&home, &config, Severity::Info, "upgrade_ready", &title, &plan)?;
        return nothing(global, &format!("{title}: `switchback promote`"));
    }
    if let Err(e) = policy::permits(&home, &config, &plan, &jiff::Zoned::now()) {
        return nothing(global, &format!("{change} waits: {e}"));
    }
    if args.dry_run {
        return show_plan(global, &plan);
    }
    drop(session);
    // Each time: production changes.
    let title = format!("{change} is promoted by promotion.auto");
    tell(&home, &config, Severity::Info, "promotes", &title, &plan);
    let versions = target.versions.iter().map(|(service, version)| format!("{service}={version}")).collect();
    let args = PromoteArgs {
        target: TargetArgs { versions, dry_run: false },
        detach: true,
        without_certificate: false,
        again: false,
        any_time: false,
        reason: None,
    };
    // The policy is the consent.
    promote(&Global { yes: true, ..global.clone() }, &args)
}

fn nothing(global: &Global, why: &str) -> Result<Exit, Trouble> {
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&json!({ "done": null, "why": why }))?;
    } else {
        out.line(&format!("Nothing is done: {why}"))?;
    }
    Ok(Exit::Done)
}

/// Tells people, once for each change.
fn tell_once(
    home: &Home,
    config: &Config,
    severity: Severity,
    event: &str,
    title: &str,
    plan: &Plan,
) -> Result<(), Trouble> {
    let releases: Vec<&str> = plan.instances.values().map(|i| i.release.as_str()).collect();
    if is_news(home, &format!("{event} {}", releases.join(" ")))? {
        tell(home, config, severity, event, title, plan);
    }
    Ok(())
}

/// Tells people.
fn tell(home: &Home, config: &Config, severity: Severity, event: &str, title: &str, plan: &Plan) {
    let lines = [format!("run {}", plan.run), "see  switchback report".to_owned()];
    notify::tell(home, config, notify::message(config, severity, event, title, &lines));
    notify::settle();
}
