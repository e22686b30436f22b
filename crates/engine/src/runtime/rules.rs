//! What `staging.egress` means for a gateway.

use crate::error::{EngineError, io};
use crate::gateway::{Authority, Canned, Rules};
use crate::home::{read_json, write_json};
use crate::runtime::Placement;
use base64::Engine as _;
use std::io::Read as _;
use std::path::PathBuf;
use switchback_core::config::{Destination, STUB_BYTES, Stub};

/// Certificates of this host that services trust besides the environment's own, where it has them.
const SYSTEM: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// The file that services are given to trust; only where there are canned answers.
pub fn authority_file(at: &Placement<'_>) -> Result<Option<PathBuf>, EngineError> {
    let Some(authority) = authority(at)? else { return Ok(None) };
    let path = at.home.instance_dir(at.instance).join("authority.pem");
    let mut text = authority.certificate;
    if let Some(system) = SYSTEM.iter().find_map(|p| std::fs::read_to_string(p).ok()) {
        text.push_str(&system);
    }
    std::fs::write(&path, text).map_err(io("write", &path))?;
    Ok(Some(path))
}

/// The environment's own authority, made once.
fn authority(at: &Placement<'_>) -> Result<Option<Authority>, EngineError> {
    if at.config.staging.egress.stubs.is_empty() {
        return Ok(None);
    }
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Kept {
        certificate: String,
        key: String,
    }
    let path = at.home.instance_dir(at.instance).join("authority.json");
    if let Ok(Kept { certificate, key }) = read_json(&path) {
        return Ok(Some(Authority { certificate, key }));
    }
    let made = Authority::generate().map_err(|e| EngineError::Internal {
        detail: format!("a certificate for canned answers cannot be made: {e}"),
    })?;
    write_json(&path, &Kept { certificate: made.certificate.clone(), key: made.key.clone() })?;
    rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(0o600))
        .map_err(|e| io("set the mode of", &path)(e.into()))?;
    Ok(Some(made))
}

/// The rules of an environment, with the files of canned answers read.
pub fn rules(at: &Placement<'_>) -> Result<Rules, EngineError> {
    let egress = &at.config.staging.egress;
    let allow = egress.allow.iter().map(|a| Destination::parse(a)).collect::<Result<_, _>>();
    let mut left = STUB_BYTES;
    let stubs = egress.stubs.iter().map(|s| canned(at, s, &mut left)).collect::<Result<_, _>>()?;
    Ok(Rules {
        default: egress.default,
        allow: allow.map_err(|e| EngineError::refused(format!("staging.egress.allow: {e}"), "correct it"))?,
        stubs,
        authority: authority(at)?,
    })
}

/// Confirms that the rules can be used.
pub fn check(at: &Placement<'_>) -> Result<(), EngineError> {
    let egress = &at.config.staging.egress;
    let mut left = STUB_BYTES;
    egress.stubs.iter().try_for_each(|s| canned(at, s, &mut left).map(drop))
}

fn canned(at: &Placement<'_>, stub: &Stub, left: &mut u64) -> Result<Canned, EngineError> {
    let body = match (&stub.body, &stub.file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(file)) => {
            let path = at.home.root().join(file);
            let mut bytes = Vec::new();
            std::fs::File::open(&path)
                .and_then(|f| f.take(*left + 1).read_to_end(&mut bytes))
                .map_err(io("read the canned answer", &path))?;
            bytes
        }
        (None, None) => Vec::new(),
    };
    *left = left.checked_sub(body.len() as u64).ok_or_else(|| {
        EngineError::refused(
            format!("the canned answers of staging.egress.stubs are longer than {STUB_BYTES} bytes together"),
            "shorten them",
        )
    })?;
    Ok(Canned {
        host: stub.host.clone(),
        port: stub.port,
        method: stub.method.clone(),
        path: stub.path.clone(),
        status: stub.status,
        headers: stub.headers.clone(),
        body: base64::engine::general_purpose::STANDARD.encode(body),
    })
}
