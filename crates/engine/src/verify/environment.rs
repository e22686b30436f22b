//! What a staging environment that stays proves: that its data is masked, that it is watched, and that a failure is told.
//!
//! Owns one environment of the sandbox, from its start to its removal. The address that messages go to is this process's own.

use super::lab::Lab;
use super::proof::{Proof, Stop};
use crate::environments;
use crate::error::EngineError;
use crate::gather::Target;
use crate::home::Home;
use crate::keeper;
use crate::notify;
use crate::runtime::Stage;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use switchback_core::anonymise::{Column, Family, Mask, MaskedStore, Sample, propose};
use switchback_core::config::Config;
use switchback_core::data::StoreKind;
use switchback_core::duration::human_ms;
use switchback_core::environment::Environment;
use switchback_core::ids::StoreName;
use switchback_core::plan::{self, CloneMode};
use switchback_core::release::Instance;

/// Its name.
const NAME: &str = "verify";
/// A value that is shorter may be in another column by chance.
const TELLING: usize = 6;
/// Long after the keeper's own look, which is every 10 s.
const ARRIVES: Duration = Duration::from_secs(20);

/// Proves it.
pub fn prove(lab: &mut Lab<'_>) -> Result<(), Stop> {
    let mailbox = Mailbox::open()?;
    let mut config = lab.sandbox()?.desired.clone();
    config.notify = vec![mailbox.url.clone()];
    let Some(production) = production(lab)? else { return Ok(()) };
    let before = samples(lab, &production)?;
    let (rules, found) = rules(&before);
    config.staging.anonymise.clone_from(&rules);
    let up = lab.carry_out(&config, |_| {
        let home = &lab.sandbox()?.home;
        let facts = environments::new_facts(
            home,
            &config,
            lab.world,
            NAME,
            &Target::default(),
            None,
            &Stage::quiet(),
        )?;
        Ok(plan::staging_up(&facts))
    })?;
    let mut masked = Proof::new(
        "staging.masked",
        "columns that look personal were masked before anything ran on the copy: none of their values is in the environment, and what refers to them still does",
    )
    .of_run(&up.plan.run);
    let mut watched = Proof::new(
        "monitoring.history",
        "every look at an environment is recorded: well, not well once its services are gone, and well again",
    )
    .of_run(&up.plan.run);
    let mut told = Proof::new(
        "notify.delivered",
        format!(
            "a message about an environment that failed arrived within {}",
            human_ms(ARRIVES.as_millis() as u64)
        ),
    )
    .of_run(&up.plan.run);
    if up.done() {
        let home = lab.sandbox()?.home.clone();
        let environment = environments::get(&home, NAME)?;
        mask_proof(
            lab,
            &mut masked,
            &environment,
            &before,
            &rules,
            found,
            &up.state.output(&"mask".into()).map(|o| o.masked.clone()).unwrap_or_default(),
        )?;
        watch(lab, &home, &config, &environment, &mailbox, (&mut watched, &mut told))?;
    } else {
        for proof in [&mut masked, &mut watched, &mut told] {
            proof.doubt(format!("no environment came up: {}", up.why()));
        }
    }
    if lab.sandbox()?.home.state().join(plan_dir()).exists() {
        let down = lab.carry_out(&config, |_| {
            let home = &lab.sandbox()?.home;
            let known = environments::find(home, NAME)?;
            let known = known.ok_or_else(|| EngineError::Internal {
                detail: "the environment is not recorded".to_owned(),
            })?;
            Ok(plan::staging_down(&environments::facts_of(home, &config, lab.world, known)?))
        });
        // What is left of it is found by the phase that looks for leftovers.
        if let Err(Stop::Interrupted) = down {
            return Err(Stop::Interrupted);
        }
    }
    for proof in [masked, watched, told] {
        lab.add(proof);
    }
    Ok(())
}

fn plan_dir() -> String {
    switchback_core::environment::dir(NAME)
}

/// What the sandbox runs as production.
fn production(lab: &Lab<'_>) -> Result<Option<Instance>, EngineError> {
    let home = &lab.sandbox()?.home;
    let Some(pointer) = home.pointer()? else { return Ok(None) };
    Ok(Some(home.generation(pointer.current)?.instance))
}

type Samples = BTreeMap<StoreName, Vec<Sample>>;

fn samples(lab: &Lab<'_>, instance: &Instance) -> Result<Samples, Stop> {
    lab.placed(instance, |at, work| {
        let mut found = Samples::new();
        for (name, place) in &instance.stores {
            if place.kind != StoreKind::Files && lab.world.data.exists(at, name)? {
                found.insert(name.clone(), lab.world.data.samples(at, name, CloneMode::Live, work)?);
            }
        }
        Ok(found)
    })
}

/// Rules for what looks personal, and how many columns do; where nothing does, for a column of texts that can be told apart.
fn rules(samples: &Samples) -> (BTreeMap<String, Mask>, usize) {
    let mut rules = BTreeMap::new();
    for (store, all) in samples {
        for sample in all {
            // A proposal by the name alone is a guess, and a mask could break a rule of the database.
            if let Some(finding) =
                propose(sample).filter(|f| f.likelihood == switchback_core::anonymise::Likelihood::Likely)
            {
                rules.insert(format!("{store}.{}", sample.column.path()), finding.mask);
            }
        }
    }
    let found = rules.len();
    if rules.is_empty() {
        let fits = |c: &Column| {
            matches!(c.family, Family::Text | Family::Any) && !c.array && !c.computed && c.limit.is_none()
        };
        let long = |s: &&Sample| {
            s.values.iter().filter(|v| v.chars().count() >= TELLING && v.parse::<f64>().is_err()).count() * 2
                > s.values.len()
        };
        let chosen = samples.iter().find_map(|(store, all)| {
            all.iter().filter(|s| fits(&s.column)).find(long).map(|s| format!("{store}.{}", s.column.path()))
        });
        rules.extend(chosen.map(|column| (column, Mask::Text)));
    }
    (rules, found)
}

/// Why no column was masked.
fn nothing_to_mask(proof: &mut Proof, before: &Samples) {
    let all = || before.values().flatten();
    let texts = all().filter(|s| s.values.iter().any(|v| v.parse::<f64>().is_err())).count();
    proof.measure("columns looked at", all().count());
    proof.measure("columns with texts in them", texts);
    if all().count() == 0 {
        proof.not_applicable("the stack has no database");
    } else if texts > 0 {
        proof.not_run("no column looks personal, and no text is long enough to be told from others");
    } else if all().all(|s| s.values.is_empty()) {
        proof.not_run("its databases have no rows yet");
    } else {
        proof.not_applicable("its databases hold numbers only, which no mask is for");
    }
}

fn mask_proof(
    lab: &Lab<'_>,
    proof: &mut Proof,
    environment: &Environment,
    before: &Samples,
    rules: &BTreeMap<String, Mask>,
    found: usize,
    masked: &BTreeMap<StoreName, MaskedStore>,
) -> Result<(), Stop> {
    if rules.is_empty() {
        nothing_to_mask(proof, before);
        return Ok(());
    }
    let columns: Vec<_> = masked.values().flat_map(|m| &m.columns).collect();
    proof.measure("columns that look personal", found);
    proof.measure("columns masked", columns.len());
    proof.measure("values masked", columns.iter().map(|c| c.values).sum::<u64>());
    proof.demand(columns.len() >= rules.len(), "rules", "not every rule was carried out");
    let after = samples(lab, &environment.instance)?;
    for (rule, mask) in rules {
        let values = |all: &Samples| -> BTreeSet<String> {
            let of = |(store, samples): (&StoreName, &Vec<Sample>)| -> Vec<String> {
                let own = samples.iter().filter(|s| format!("{store}.{}", s.column.path()) == *rule);
                own.flat_map(|s| s.values.clone()).filter(|v| v.chars().count() >= TELLING).collect()
            };
            all.iter().flat_map(of).collect()
        };
        let (was, is) = (values(before), values(&after));
        let left = was.intersection(&is).count();
        proof.measure(
            format!("{rule} ({})", mask.as_str()),
            format!("{} values looked at, {left} of them left", was.len()),
        );
        proof.demand(left == 0, rule, format!("{left} values are as in production"));
        if was.is_empty() {
            proof.doubt(format!("{rule} has no values"));
        }
    }
    Ok(())
}

/// Looks at the environment as the keeper does, takes its services away, and brings them back.
fn watch(
    lab: &Lab<'_>,
    home: &Home,
    config: &Config,
    environment: &Environment,
    mailbox: &Mailbox,
    (watched, told): (&mut Proof, &mut Proof),
) -> Result<(), Stop> {
    let look = || keeper::look_with(home, config, lab.request.cancel, &|_| {});
    look()?;
    lab.ground.crash(home, &environment.instance)?;
    let crashed = Instant::now();
    look()?;
    let message = lab.wait_for(ARRIVES, || Ok(mailbox.find("environment_not_well")))?;
    let took = crashed.elapsed();
    lab.carry_out(config, |_| {
        Ok(plan::staging_start(&environments::facts_of(home, config, lab.world, environment.clone())?))
    })?;
    look()?;
    let again = lab.wait_for(ARRIVES, || Ok(mailbox.find("environment_well")))?;
    notify::settle();

    let history = keeper::samples(home, NAME);
    let states: Vec<bool> = history.iter().map(|s| s.well).collect();
    watched.measure("looks recorded", states.len());
    let words: Vec<&str> = states.iter().map(|w| if *w { "well" } else { "not well" }).collect();
    watched.measure("in order", words.join(", "));
    let first = history.first();
    watched.measure(
        "of each service",
        first.map_or(0, |s| s.services.len()).to_string()
            + " (state, starts, processor, memory, errors in its log)",
    );
    watched.demand(states == [true, false, true], "history", "it does not say well, not well, well again");
    let memory = first.is_some_and(|s| s.services.values().any(|s| s.memory_bytes > 0));
    watched.demand(memory, "resources", "no service used any memory");

    match message {
        Some(text) => {
            told.measure("the failure was told after", human_ms(took.as_millis() as u64));
            told.demand(text.contains(NAME), "message", "it does not name the environment");
        }
        None => {
            told.demand(false, "message", "it did not arrive");
        }
    }
    told.demand(again.is_some(), "recovery", "that it is well again was not told");
    told.measure("messages", mailbox.count());
    Ok(())
}

/// Takes messages for one acceptance run, on the loopback.
struct Mailbox {
    url: String,
    messages: Arc<Mutex<Vec<String>>>,
}

/// The longest message that is read.
const LONGEST: u64 = 64 << 10;

impl Mailbox {
    fn open() -> Result<Self, EngineError> {
        let trouble =
            |e: std::io::Error| EngineError::Internal { detail: format!("no address for messages: {e}") };
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(trouble)?;
        let url = format!("http://{}/switchback-verify", listener.local_addr().map_err(trouble)?);
        let messages: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&messages);
        // It ends with the program: verify is one command.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(text) = receive(stream)
                    && let Ok(mut all) = kept.lock()
                {
                    all.push(text);
                }
            }
        });
        Ok(Self { url, messages })
    }

    fn find(&self, event: &str) -> Option<String> {
        let all = self.messages.lock().ok()?;
        let wanted = format!("\"{event}\"");
        all.iter().find(|m| m.contains(&wanted)).cloned()
    }

    fn count(&self) -> usize {
        self.messages.lock().map_or(0, |m| m.len())
    }
}

/// One request, answered; its text.
fn receive(mut stream: std::net::TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while (bytes.len() as u64) < LONGEST {
        let read = stream.read(&mut part).ok()?;
        bytes.extend_from_slice(part.get(..read)?);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| {
                let (name, value) = l.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if length.is_none_or(|l| body.len() >= l) || read == 0 {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .ok()?;
                return Some(text.into_owned());
            }
        } else if read == 0 {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database with one column of these values.
    fn column(values: &[&str]) -> Samples {
        let column = Column {
            database: String::new(),
            schema: String::new(),
            table: "points".to_owned(),
            name: "x".to_owned(),
            family: Family::Any,
            sql_type: "real".to_owned(),
            array: false,
            limit: None,
            required: false,
            computed: false,
        };
        let values = values.iter().map(ToString::to_string).collect();
        let store = StoreName::new("db").expect("a name");
        [(store, vec![Sample { column, values }])].into()
    }

    #[test]
    fn nothing_that_was_masked_is_never_a_pass() {
        for (samples, word) in [
            (Samples::new(), "not applicable"),
            (column(&["1", "2.5"]), "not applicable"),
            (column(&[]), "not run"),
            (column(&["1", "no"]), "not run"),
        ] {
            assert!(rules(&samples).0.is_empty(), "{samples:?}");
            let mut proof = Proof::new("staging.masked", "");
            nothing_to_mask(&mut proof, &samples);
            assert_eq!(proof.verdict().word(), word, "{samples:?}");
        }
    }
}
