//! What changes an environment.

use super::super::consent::confirm;
use super::super::upgrade::{carry_out, open, planning, session, show_plan, target};
use super::super::{Exit, Global, Output, Trouble};
use super::{KeepArgs, UpArgs};
use serde_json::json;
use switchback_core::config::Config;
use switchback_core::environment::{self, DEFAULT_NAME, Environment};
use switchback_core::plan::{self, Plan, StagingFacts};
use switchback_engine::backup::facts::fetch_facts;
use switchback_engine::engine::now_ms;
use switchback_engine::environments;
use switchback_engine::error::EngineError;
use switchback_engine::home::Home;
use switchback_engine::keeper;
use switchback_engine::runtime::Stage;
use switchback_engine::world::World;

/// Splits `NAME` from `SERVICE=VERSION` words.
fn words(args: &UpArgs) -> Result<(String, Vec<String>), Trouble> {
    let (versions, names): (Vec<String>, Vec<String>) =
        args.words.iter().cloned().partition(|w| w.contains('='));
    if names.len() > 1 {
        return Err(Trouble::usage(
            format!("one environment at a time, not {}", names.join(", ")),
            "for example  switchback staging up try-2 n8n=2.8.4",
        ));
    }
    let name = names.into_iter().next().unwrap_or_else(|| DEFAULT_NAME.to_owned());
    environment::check_name(&name)
        .map_err(|e| Trouble::usage(e.to_string(), "for example  switchback staging up try-2"))?;
    Ok((name, versions))
}

/// Makes an environment, or starts one.
pub fn up(global: &Global, args: &UpArgs) -> Result<Exit, Trouble> {
    let (name, versions) = words(args)?;
    let (home, config) = open(global)?;
    let target = target(&config, &versions)?;
    let mut session = session(global, &home, "staging up")?;
    session.require_settled()?;
    session.end_leftovers(&config)?;
    let world = World::open(&config)?;
    if let Some(known) = environments::find(&home, &name)? {
        return again(global, &home, &config, &world, &mut session, known, args, &versions);
    }
    remove_half(&home, &world, &name)?;
    let at_ms = args.at.map(super::super::moments::Moment::ms);
    let backup = match (&args.from_backup, at_ms) {
        (None, None) => None,
        (wanted, _) => {
            let wanted = wanted.as_deref().unwrap_or("latest");
            Some(fetch_facts(&home, &config, &world, wanted, at_ms)?.0)
        }
    };
    let mut facts = planning(global, |stage: &Stage<'_>| {
        environments::new_facts(&home, &config, &world, &name, &target, backup.as_ref(), stage)
    })?;
    if let Some(keep) = args.keep {
        facts.environment.expires_at_ms = Some(after(keep.as_millis()));
    }
    let plan = plan::staging_up(&facts);
    if args.dry_run {
        return show_plan(global, &plan);
    }
    let exit = carry_out(global, &home, &mut session, &plan, &config)?;
    drop(session);
    if exit == Exit::Done {
        keeper::spawn(&home)?;
        super::look::addresses(global, &home, &config, &facts.environment)?;
    }
    Ok(exit)
}

/// What a run that was given up left under this name, of which nothing is recorded.
fn remove_half(home: &Home, world: &World, name: &str) -> Result<(), EngineError> {
    let dir = environment::dir(name);
    world.runtime.kill_below(home, &dir, &[])?;
    let folder = home.state().join(&dir);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|source| EngineError::Io {
            doing: "remove",
            path: folder,
            source,
        })?;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "`up` has them all at hand")]
fn again(
    global: &Global,
    home: &Home,
    config: &Config,
    world: &World,
    session: &mut switchback_engine::session::Session<'_>,
    mut known: Environment,
    args: &UpArgs,
    versions: &[String],
) -> Result<Exit, Trouble> {
    for word in versions {
        let (service, version) = word.split_once('=').unwrap_or((word, ""));
        if known.instance.versions.iter().any(|(s, v)| s.as_str() == service && v != version) {
            return Err(Trouble::refused(
                format!("the environment {} exists and runs another version of {service}", known.name),
                format!("remove it first (`switchback staging down {}`), or give another name", known.name),
            ));
        }
    }
    if let Some(keep) = args.keep {
        known.expires_at_ms = Some(after(keep.as_millis()));
        environments::save(home, &known)?;
    }
    let running = world.runtime.running(home, &known.instance)?;
    let release = home.release(&known.instance.release)?;
    let at =
        switchback_engine::runtime::Placement { home, config, instance: &known.instance, release: &release };
    let all_well = !running.is_empty() && world.runtime.observe(&at)?.values().all(|s| s.well);
    if all_well && known.whole {
        let out = Output::new(global.json);
        if !out.is_json() {
            out.line(&format!("{} is up already.", known.name))?;
        }
        keeper::spawn(home)?;
        super::look::addresses(global, home, config, &known)?;
        return Ok(Exit::Done);
    }
    if !known.whole {
        return Err(Trouble::refused(
            format!("the data of {} is not whole: replacing it was interrupted", known.name),
            format!(
                "`switchback staging sync {0}` gets it again, `switchback staging down {0}` removes it",
                known.name
            ),
        ));
    }
    let facts = environments::facts_of(home, config, world, known)?;
    let plan = plan::staging_start(&facts);
    if args.dry_run {
        return show_plan(global, &plan);
    }
    let exit = carry_out(global, home, session, &plan, config)?;
    if exit == Exit::Done {
        keeper::spawn(home)?;
        super::look::addresses(global, home, config, &facts.environment)?;
    }
    Ok(exit)
}

fn after(ms: u64) -> i64 {
    now_ms().saturating_add(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// Carries out a plan for an environment that exists.
fn existing(
    global: &Global,
    name: &str,
    what: &str,
    make: impl FnOnce(&StagingFacts) -> Result<Plan, Trouble>,
    ask: impl FnOnce(&Environment) -> Option<String>,
) -> Result<Exit, Trouble> {
    let (home, config) = open(global)?;
    let mut session = session(global, &home, what)?;
    session.require_settled()?;
    session.end_leftovers(&config)?;
    let known = environments::get(&home, name)?;
    if let Some(question) = ask(&known)
        && !confirm(global, &question)?
    {
        return Err(Trouble {
            exit: Exit::Usage,
            message: "not confirmed; nothing was done".to_owned(),
            hint: None,
        });
    }
    let world = World::open(&config)?;
    let facts = environments::facts_of(&home, &config, &world, known)?;
    let plan = make(&facts)?;
    let exit = carry_out(global, &home, &mut session, &plan, &config)?;
    if exit == Exit::Done {
        keeper::spawn(&home)?;
    }
    Ok(exit)
}

/// Removes an environment.
pub fn down(global: &Global, name: &str) -> Result<Exit, Trouble> {
    existing(
        global,
        name,
        "staging down",
        |facts| Ok(plan::staging_down(facts)),
        |known| Some(format!("Remove {} with its data? What was done in it is lost.", known.name)),
    )
}

/// Brings production's present data.
pub fn sync(global: &Global, name: &str) -> Result<Exit, Trouble> {
    existing(
        global,
        name,
        "staging sync",
        |facts| Ok(plan::staging_sync(facts)),
        |known| {
            Some(format!("Replace the data of {} by production's? What was done in it is lost.", known.name))
        },
    )
}

/// Brings the data of the last sync back.
pub fn reset(global: &Global, name: &str) -> Result<Exit, Trouble> {
    existing(
        global,
        name,
        "staging reset",
        |facts| match &facts.environment.pristine {
            _ if facts.environment.data.rules != facts.rules => Err(Trouble::refused(
                format!(
                    "{}: staging.anonymise has changed since its data was masked",
                    facts.environment.name
                ),
                "`switchback staging sync` brings production's data and masks it by the rules of now",
            )),
            Some(_) => Ok(plan::staging_reset(facts)),
            None => Err(Trouble::refused(
                format!("{} keeps no untouched copy of its data", facts.environment.name),
                "`switchback staging sync` brings production's present data; `staging.pristine: true` keeps a copy",
            )),
        },
        |known| Some(format!("Reset the data of {}? What was done in it is lost.", known.name)),
    )
}

/// Stops an environment.
pub fn stop(global: &Global, name: &str) -> Result<Exit, Trouble> {
    existing(global, name, "staging stop", |facts| Ok(plan::staging_stop(facts)), |_| None)
}

/// Says how long an environment stays.
pub fn keep(global: &Global, args: &KeepArgs) -> Result<Exit, Trouble> {
    let (home, _) = open(global)?;
    let _session = session(global, &home, "staging keep")?;
    let mut known = environments::get(&home, &args.name)?;
    known.expires_at_ms = args.time.filter(|_| !args.forever).map(|t| after(t.as_millis()));
    environments::save(&home, &known)?;
    let out = Output::new(global.json);
    if out.is_json() {
        out.json(&json!({ "environment": known.name, "expires_at_ms": known.expires_at_ms }))?;
    } else {
        out.line(&match args.time.filter(|_| !args.forever) {
            Some(time) => format!("{} stays for {time}.", known.name),
            None => format!("{} stays until `switchback staging down {}`.", known.name, known.name),
        })?;
    }
    Ok(Exit::Done)
}
