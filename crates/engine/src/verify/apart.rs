//! On one promotion of the sandbox: the rollback drilled on production itself, and one service rolled back while all others go on.

use super::lab::Lab;
use super::proof::{Proof, Stop};
use super::recovery::SHORT_TRIAL;
use super::rollback::{LIMIT_MS, TRIAL_ENDS, generations, runs};
use crate::drill::production_facts;
use crate::error::EngineError;
use crate::runtime::Placement;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use switchback_core::config::Config;
use switchback_core::duration::human_ms;
use switchback_core::ids::ServiceName;
use switchback_core::plan::{self, Plan};
use switchback_core::release::{Instance, Release};

/// How often somebody from outside asks the services that go on.
const ASK: Duration = Duration::from_millis(10);
/// Pairs of services are tried where none can go back alone: so many of them.
const MOST_PAIRS: usize = 20;

/// Proves both.
pub fn prove(lab: &mut Lab<'_>, config: &Config) -> Result<(), Stop> {
    let mut config = config.clone();
    config.rollback.watch = SHORT_TRIAL;
    let limit = config.rollback.budget.as_millis().min(LIMIT_MS);
    let mut drilled = Proof::new(
        "drill.production",
        format!(
            "production is switched to a copy that no client reaches, and rolled back within {}; its generation, data and configuration stay where they are, and a certificate is issued",
            human_ms(limit)
        ),
    );
    let mut single = Proof::new(
        "rollback.single",
        "what can go back alone does, with its own data, while every other service answers all the time and keeps its data",
    );
    let promoted = lab.promote(&config)?;
    if !promoted.done() || lab.wait_trial(&promoted.plan.run, TRIAL_ENDS)?.is_none() {
        for mut proof in [drilled, single] {
            proof.doubt(format!("the promotion before it did not succeed: {}", promoted.why()));
            lab.add(proof);
        }
        return Ok(());
    }
    drill(lab, &config, limit, &mut drilled)?;
    lab.add(drilled);
    apart(lab, &config, limit, &mut single)?;
    lab.add(single);
    Ok(())
}

fn drill(lab: &Lab<'_>, config: &Config, limit: u64, proof: &mut Proof) -> Result<(), Stop> {
    let home = lab.sandbox()?.home.clone();
    let (production, _) = generations(lab)?;
    let open = lab.placed(&production, |at, _| lab.world.runtime.open_ways(at))?;
    if !open.is_empty() {
        proof.not_applicable(format!(
            "what is written to a copy could come from elsewhere: {}",
            open.join("; ")
        ));
        return Ok(());
    }
    let files = lab.ground.config_now(&home, &production)?;
    let pointer = home.pointer()?;
    let ran = lab.carry_out(config, |s| {
        s.require_no_trial()?;
        Ok(plan::production_drill(&production_facts(&home, config, lab.world)?))
    })?;
    proof.runs.push(ran.plan.run.clone());
    let times = &ran.report.times;
    if let Some(ms) = times.downtime_ms {
        proof.measure("production was away, there and back", human_ms(ms));
    }
    if let Some(ms) = times.rollback_ms {
        proof.measure("rollback", human_ms(ms));
    }
    proof.demand(ran.done(), "the drill", ran.why());
    proof.demand_known(times.rollback_ms, |ms| *ms <= limit, "rollback", "it took longer than its limit");
    proof.demand(home.pointer()? == pointer, "pointer", "it names another generation than before");
    let (now, _) = generations(lab)?;
    proof.demand(now.stores == production.stores, "data", "production's data lies elsewhere than before");
    let same = lab.ground.config_now(&home, &now)? == files;
    proof.demand(same, "configuration", "production's configuration is another one than before");
    if let Err(differences) = runs(lab, &now)? {
        proof.demand(false, "read back", differences.join("; "));
    }
    let certified = ran.report.certificate.as_ref().is_some_and(|c| c.drilled && c.signature.is_some());
    proof.demand(certified, "certificate", "none was issued for the drill");
    Ok(())
}

fn apart(lab: &Lab<'_>, config: &Config, limit: u64, proof: &mut Proof) -> Result<(), Stop> {
    let home = lab.sandbox()?.home.clone();
    let (leave, old) = generations(lab)?;
    let Some(old) = old else {
        proof.doubt("there is no generation to return to");
        return Ok(());
    };
    let (now, before) = (home.release(&leave.release)?, home.release(&old.release)?);
    let (plan, refused) = possible(lab, config, &now, &before)?;
    let shown = |names: &[ServiceName]| names.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
    for (names, why) in &refused {
        proof.measure(format!("{} alone", shown(names)), why);
    }
    let Some((back, plan)) = plan else {
        let why = match refused.first() {
            None => "there is no service of which both versions are known".to_owned(),
            Some((names, why)) => {
                format!("no service can go back without the others ({}: {why})", shown(names))
            }
        };
        proof.not_applicable(why);
        return Ok(());
    };
    proof.measure("rolled back", shown(&back));
    let others: Vec<ServiceName> = now.services.keys().filter(|n| !back.contains(n)).cloned().collect();
    let at = Placement { home: &home, config, instance: &leave, release: &now };
    let end = AtomicBool::new(false);
    let (ran, asked) = std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let (mut looks, mut silent) = (0_u64, Vec::new());
            while !end.load(Ordering::Relaxed) {
                silent.extend(others.iter().filter(|n| !lab.world.runtime.probe(&at, n).ok).cloned());
                looks += 1;
                std::thread::sleep(ASK);
            }
            (looks, silent)
        });
        let ran = lab.carry_out(config, |_| Ok(plan));
        end.store(true, Ordering::Relaxed);
        (ran, looker.join())
    });
    let ran = ran?;
    proof.runs.push(ran.plan.run.clone());
    proof.demand(ran.done(), "the rollback", ran.why());
    if let Some(ms) = ran.report.times.rollback_ms {
        proof.measure("rollback", human_ms(ms));
    }
    let took = ran.report.times.rollback_ms;
    proof.demand_known(took, |ms| *ms <= limit, "rollback", "it took longer than its limit");
    match asked {
        Ok((looks, silent)) => {
            proof.measure(format!("{} asked meanwhile", shown(&others)), format!("{looks} times"));
            let first = silent.first().map_or("", ServiceName::as_str);
            proof.demand(silent.is_empty(), first, format!("no good answer, {} times in all", silent.len()));
            proof.demand(looks > 0, "the other services", "nobody asked them");
        }
        Err(_) => drop(proof.doubt("the other services could not be asked")),
    }
    arrived(lab, (&leave, &now), &before, &back, proof)
}

/// What runs now: those services as they were, all else as it was left.
fn arrived(
    lab: &Lab<'_>,
    (leave, now): (&Instance, &Release),
    before: &Release,
    back: &[ServiceName],
    proof: &mut Proof,
) -> Result<(), Stop> {
    let home = &lab.sandbox()?.home;
    let (mixed, _) = generations(lab)?;
    let release = home.release(&mixed.release)?;
    for name in now.services.keys() {
        let wanted = if back.contains(name) { before } else { now };
        let same = release.services.get(name) == wanted.services.get(name);
        proof.demand(same, name.as_str(), "it is another version than it should be");
    }
    let kept = leave.common_places(&mixed);
    for (name, stores) in &lab.world.runtime.uses(home, leave, now)?.stores {
        let went = back.contains(name);
        for store in stores {
            let what = if went { "its data did not go back with it" } else { "its data went back, too" };
            proof.demand(kept.contains(&store) != went, format!("{name}: {store}"), what);
        }
    }
    proof
        .measure("stores that stayed", kept.len())
        .measure("stores that went back", leave.stores.len() - kept.len());
    if let Err(differences) = runs(lab, &mixed)? {
        proof.demand(false, "read back", differences.join("; "));
    }
    Ok(())
}

/// Services, and why they cannot go back without others.
type Refused = Vec<(Vec<ServiceName>, String)>;
/// Services that can.
type Possible = Option<(Vec<ServiceName>, Plan)>;

/// The first service, or pair of services, that can go back while the others go on.
fn possible(
    lab: &Lab<'_>,
    config: &Config,
    now: &Release,
    before: &Release,
) -> Result<(Possible, Refused), Stop> {
    let other =
        |name: &ServiceName| before.services.get(name).is_some_and(|was| now.services.get(name) != Some(was));
    let singles: Vec<ServiceName> = now.services.keys().filter(|n| other(n)).cloned().collect();
    let pairs = singles.iter().enumerate().flat_map(|(i, one)| {
        singles.get(i + 1..).unwrap_or_default().iter().map(move |two| vec![one.clone(), two.clone()])
    });
    let mut refused = Refused::new();
    for names in singles.iter().map(|n| vec![n.clone()]).chain(pairs.take(MOST_PAIRS)) {
        let words: Vec<String> = names.iter().map(ToString::to_string).collect();
        match lab.session()?.plan_service_rollback(config, &words, "verify: what can go back alone") {
            Ok(plan) => return Ok((Some((names, plan)), refused)),
            Err(EngineError::Refused { message, .. }) if names.len() == 1 => refused.push((names, message)),
            Err(EngineError::Refused { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok((None, refused))
}
