//! Certificates: signing them, and whether one permits a promotion.
//!
//! Owns `.switchback/certificate.key`. It must never be printed, nor reach an argument, a journal or a report.

use crate::engine::now_ms;
use crate::error::{EngineError, io};
use crate::fault::{Gap, gap};
use crate::home::{Home, make_secret};
use crate::journal::Journal;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use std::fs;
use std::path::PathBuf;
use switchback_core::duration::human_bytes;
use switchback_core::ids::{Digest, GenerationId, RunId};
use switchback_core::journal::{ErrorKind, Event, Outcome};
use switchback_core::plan::{Op, Plan, Procedure};
use switchback_core::release::{Certificate, Signature, describe_change};

/// Data that has grown by less than this has not grown.
const GROWTH_BYTES: u64 = 256 << 20;
/// Rehearsals whose rollbacks make the range of a certificate.
const RANGE: usize = 10;

fn path(home: &Home) -> PathBuf {
    home.state().join("certificate.key")
}

/// The key of a stack, made the first time. Who removes the file has to rehearse again.
fn key(home: &Home) -> Result<SigningKey, EngineError> {
    let path = path(home);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let bytes = unhex::<32>(text.trim()).ok_or_else(|| EngineError::Damaged {
                what: path,
                detail: "it is no key; remove it and rehearse again".to_owned(),
            })?;
            Ok(SigningKey::from_bytes(&bytes))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Ok(SigningKey::from_bytes(&make_secret(&path)?))
        }
        Err(e) => Err(io("read", &path)(e)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Signs a certificate with the stack's key.
pub fn sign(home: &Home, certificate: &mut Certificate) -> Result<(), EngineError> {
    let key = key(home)?;
    let value = key.sign(&certificate.signed_bytes());
    certificate.signature =
        Some(Signature { key: hex(key.verifying_key().as_bytes()), value: hex(&value.to_bytes()) });
    Ok(())
}

/// Confirms that a certificate is as the stack's key signed it; why not, if it is not.
pub fn check_signature(home: &Home, certificate: &Certificate) -> Result<Result<(), String>, EngineError> {
    let own = key(home)?.verifying_key();
    Ok(verify(&own, certificate))
}

fn verify(own: &VerifyingKey, certificate: &Certificate) -> Result<(), String> {
    let Some(signature) = &certificate.signature else { return Err("it is not signed".to_owned()) };
    if signature.key != hex(own.as_bytes()) {
        return Err("it was signed with another key".to_owned());
    }
    let value = unhex::<64>(&signature.value).ok_or("its signature is no signature")?;
    own.verify_strict(&certificate.signed_bytes(), &ed25519_dalek::Signature::from_bytes(&value))
        .map_err(|_| "it was changed after it was signed".to_owned())
}

/// All certificates ever issued, newest last.
pub fn certificates(journal: &Journal) -> Result<Vec<Certificate>, EngineError> {
    let mut found = Vec::new();
    for record in journal.of_kind("finished")? {
        if let Event::Finished { output, .. } = record.event {
            found.extend(output.certificate);
        }
    }
    Ok(found)
}

/// The last certificate of an upgrade.
pub fn last(home: &Home, from: &Digest, to: &Digest) -> Result<Option<Certificate>, EngineError> {
    let journal = Journal::open_read(&home.state().join("journal.db"))?;
    let all = journal.as_ref().map_or_else(|| Ok(Vec::new()), certificates)?;
    Ok(all.into_iter().rev().find(|c| c.from == *from && c.to == *to))
}

/// The least and the most that a rollback took in the last rehearsals on this host, with one more.
pub fn rollback_range(home: &Home, ms: u64) -> Result<(u64, u64), EngineError> {
    let journal = Journal::open_read(&home.state().join("journal.db"))?;
    let all = journal.as_ref().map_or_else(|| Ok(Vec::new()), certificates)?;
    let host = crate::host_name();
    let own = all.iter().rev().filter(|c| c.host == host).take(RANGE - 1).map(|c| c.rollback_ms);
    Ok(own.fold((ms, ms), |(least, most), ms| (least.min(ms), most.max(ms))))
}

/// The release of one of a plan's generations of production.
pub(crate) fn release_of(plan: &Plan, generation: Option<GenerationId>) -> Option<Digest> {
    let made = plan.instances.values().find(|i| i.is_production() && Some(i.generation) == generation);
    made.map(|i| i.release.clone())
}

/// Bytes of data that a promotion copies (its needs are for two copies); none where blocks are shared, and nothing takes longer for more data.
fn copied(plan: &Plan) -> u64 {
    let needs = plan.steps.iter().filter_map(|s| match s.op {
        Op::Preflight { need_bytes, .. } => Some(need_bytes),
        _ => None,
    });
    needs.max().unwrap_or_default() / 2
}

/// Confirms that a certificate permits what the plan does: that one, or none where none is needed.
pub fn permits(home: &Home, plan: &Plan) -> Result<Option<Certificate>, EngineError> {
    if plan.reason.is_some() || gap(Gap::Certificate) {
        return Ok(None); // a person waived it, with a reason that is in the plan
    }
    if plan.from_generation.is_none() || plan.to_generation.is_none() {
        return Ok(None);
    }
    let releases = (release_of(plan, plan.from_generation), release_of(plan, plan.to_generation));
    let (Some(from), Some(to)) = releases else {
        return Err(EngineError::Internal { detail: "a promotion without two releases".to_owned() });
    };
    let journal = Journal::open_read(&home.state().join("journal.db"))?;
    let certificates = journal.as_ref().map_or_else(|| Ok(Vec::new()), certificates)?;
    let own = key(home)?.verifying_key();
    let change = describe_change(&plan.from, &plan.to);
    let matches = |c: &&Certificate| c.from == from && c.to == to && !c.drilled;
    let matching: Vec<&Certificate> = certificates.iter().filter(matches).collect();
    let mut last = None;
    for certificate in matching.iter().rev() {
        let refused = journal.as_ref().map_or(Ok(None), |j| refused_since(j, certificate, &change))?;
        match objection(&own, certificate, &change, copied(plan)).or(refused) {
            None => return Ok(Some((*certificate).clone())),
            // What is said of the newest one is what helps.
            Some(error) => drop(last.get_or_insert(error)),
        }
    }
    Err(last.unwrap_or_else(|| {
        if certificates.is_empty() {
            EngineError::refused(
                format!("there is no certificate for {change}"),
                "rehearse first: `switchback rehearse`; in an emergency: `promote --without-certificate --reason TEXT`",
            )
        } else {
            EngineError::refused(
                format!(
                    "there is a certificate, but not for {change} with exactly these artefacts and configuration"
                ),
                "rehearse this upgrade: `switchback rehearse`",
            )
        }
    }))
}

/// What a later rehearsal of exactly the same upgrade says against a certificate: what was seen last counts.
fn refused_since(
    journal: &Journal,
    certificate: &Certificate,
    change: &str,
) -> Result<Option<EngineError>, EngineError> {
    let speaks = |run: &RunId| {
        if *run == certificate.run {
            return Ok(Some(None)); // older ones count no more
        }
        let (plan, state, _) = journal.load(run)?;
        let same = |from: &String, to: &String| {
            plan.instance(from).is_some_and(|i| i.release == certificate.from)
                && plan.instance(to).is_some_and(|i| i.release == certificate.to)
        };
        let tries = |op: &Op| matches!(op, Op::Certify { from, to, .. } if same(from, to));
        if !plan.steps.iter().any(|s| tries(&s.op)) {
            return Ok(None);
        }
        let why = match &state.ended {
            Some(Outcome::Refused { reasons }) => reasons.join("; "),
            Some(Outcome::Undone { step: Some(_), error }) if error.kind == ErrorKind::Refused => {
                error.message.clone()
            }
            // It was not finished, or the host was in its way: it says nothing about the upgrade.
            _ => return Ok(None),
        };
        Ok(Some(Some(EngineError::refused(
            format!(
                "the rehearsal {run} of {change} was refused, after a certificate for it was issued: {why}"
            ),
            format!("rehearse again: `switchback rehearse`; `switchback report {run}` has what was seen"),
        ))))
    };
    Ok(journal.newest_of(|p| p == Procedure::Rehearse, speaks)?.flatten())
}

/// What speaks against a certificate.
fn objection(
    own: &VerifyingKey,
    certificate: &Certificate,
    change: &str,
    data_bytes: u64,
) -> Option<EngineError> {
    let host = crate::host_name();
    if certificate.host != host {
        return Some(EngineError::refused(
            format!("the certificate for {change} was issued on another host ({})", certificate.host),
            "rehearse on this host: `switchback rehearse`",
        ));
    }
    if let Err(why) = verify(own, certificate) {
        return Some(EngineError::refused(
            format!("the certificate for {change} does not count: {why}"),
            "rehearse again: `switchback rehearse`; if nobody removed .switchback/certificate.key, find out who changed the journal: `switchback audit verify`",
        ));
    }
    if certificate.expires_at_ms <= now_ms() && !gap(Gap::Expiry) {
        return Some(EngineError::refused(
            format!("the certificate for {change} has expired"),
            "rehearse again: `switchback rehearse`; data and host may have changed since",
        ));
    }
    let then = certificate.data_bytes;
    if data_bytes > then.saturating_mul(2).max(then.saturating_add(GROWTH_BYTES)) {
        return Some(EngineError::refused(
            format!(
                "production's data has more than doubled since the certificate for {change} was issued: {} then, {} now",
                human_bytes(then),
                human_bytes(data_bytes)
            ),
            "rehearse again: `switchback rehearse`; its times say nothing about so much data",
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchback_core::ids::RunId;

    fn certificate(home: &Home) -> Certificate {
        let digest = |c: &str| Digest(c.repeat(64));
        let mut made = Certificate {
            run: serde_json::from_str::<RunId>("\"01JQZZZZZZZZZZZZZZZZZZZZZZ\"").expect("a run"),
            from: digest("a"),
            to: digest("b"),
            issued_at_ms: 1,
            expires_at_ms: i64::MAX,
            host: crate::host_name(),
            data_bytes: 1 << 30,
            rollback_ms: 700,
            rollback_range_ms: Some((650, 900)),
            downtime_ms: 2000,
            checks_passed: 7,
            coverage: None,
            drilled: false,
            signature: None,
        };
        sign(home, &mut made).expect("signs");
        made
    }

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join("switchback.yaml"), "").expect("writes");
        let home = Home::open(dir.path()).expect("opens");
        home.create_state().expect("creates");
        (dir, home)
    }

    #[test]
    fn any_change_after_the_signature_is_found() {
        let (_dir, home) = home();
        let made = certificate(&home);
        assert_eq!(check_signature(&home, &made).expect("reads"), Ok(()));
        let kept: Certificate =
            serde_json::from_str(&serde_json::to_string(&made).expect("JSON")).expect("reads");
        assert_eq!(check_signature(&home, &kept).expect("reads"), Ok(()), "as it is kept");
        let changes: [fn(&mut Certificate); 8] = [
            |c| c.to = Digest("c".repeat(64)),
            |c| c.expires_at_ms -= 1,
            |c| c.host.push('x'),
            |c| c.data_bytes += 1,
            |c| c.rollback_range_ms = None,
            |c| c.checks_passed += 1,
            |c| c.drilled = true,
            |c| c.signature.as_mut().expect("signed").value.replace_range(0..2, "00"),
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut other = made.clone();
            change(&mut other);
            assert!(check_signature(&home, &other).expect("reads").is_err(), "{i}");
        }
        let unsigned = Certificate { signature: None, ..made.clone() };
        assert_eq!(check_signature(&home, &unsigned).expect("reads"), Err("it is not signed".to_owned()));
        fs::remove_file(path(&home)).expect("removes");
        let why = check_signature(&home, &made).expect("reads").expect_err("another key");
        assert_eq!(why, "it was signed with another key");
        fs::write(path(&home), "no key").expect("writes");
        assert!(check_signature(&home, &made).is_err());
    }

    #[test]
    fn what_speaks_against_a_certificate() {
        let (_dir, home) = home();
        let own = key(&home).expect("a key").verifying_key();
        let made = certificate(&home);
        let says = |c: &Certificate, bytes| {
            objection(&own, c, "a 1 -> 2", bytes).map(|e| e.to_string()).unwrap_or_default()
        };
        assert_eq!(says(&made, 2 << 30), "");
        assert!(says(&made, (2 << 30) + 1).contains("more than doubled"), "{}", says(&made, (2 << 30) + 1));
        let signed = |change: fn(&mut Certificate)| {
            let mut other = made.clone();
            change(&mut other);
            sign(&home, &mut other).expect("signs");
            other
        };
        assert!(says(&signed(|c| c.expires_at_ms = 5), 0).contains("has expired"));
        assert!(says(&signed(|c| c.host = "elsewhere".to_owned()), 0).contains("another host (elsewhere)"));
        // Little data may grow by more than twice.
        assert_eq!(says(&signed(|c| c.data_bytes = 1000), 200 << 20), "");
    }
}
