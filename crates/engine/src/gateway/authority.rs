//! The authority of an environment: its certificate is what services trust, its key signs canned answers over TLS.
//!
//! Made anew for every environment; it must never be trusted, or kept, anywhere else.

use super::config::Authority;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Names that certificates are kept for; beyond it they are made anew each time.
const KEPT: usize = 256;

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Switchback staging");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Authority {
    /// Makes a new one.
    pub fn generate() -> Result<Self, String> {
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let certificate = params().self_signed(&key).map_err(|e| e.to_string())?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Makes the certificates of hosts.
pub struct Certifier {
    issuer: Issuer<'static, KeyPair>,
    made: Mutex<BTreeMap<String, Arc<ServerConfig>>>,
}

impl Certifier {
    /// One that signs with an authority.
    pub fn new(authority: &Authority) -> Result<Self, String> {
        let key = KeyPair::from_pem(&authority.key).map_err(|e| e.to_string())?;
        Ok(Self { issuer: Issuer::new(params(), key), made: Mutex::default() })
    }

    /// What a server of this name needs.
    pub fn server(&self, host: &str) -> Result<Arc<ServerConfig>, String> {
        if let Ok(made) = self.made.lock()
            && let Some(found) = made.get(host)
        {
            return Ok(found.clone());
        }
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(|e| e.to_string())?;
        params.distinguished_name.push(DnType::CommonName, "Switchback staging stub");
        let certificate = params.signed_by(&key, &self.issuer).map_err(|e| e.to_string())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .map_err(|e| e.to_string())?;
        // The sink speaks nothing newer.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        if let Ok(mut made) = self.made.lock()
            && made.len() < KEPT
        {
            made.insert(host.to_owned(), config.clone());
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    #[test]
    fn a_certificate_is_good_for_its_host_with_this_authority_only() {
        let authority = Authority::generate().expect("an authority");
        let other = Authority::generate().expect("an authority");
        let server =
            Certifier::new(&authority).expect("a certifier").server("api.example.com").expect("a server");
        for (trusted, host, good) in [
            (&authority, "api.example.com", true),
            (&authority, "other.example.com", false),
            (&other, "api.example.com", false),
        ] {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(trusted.certificate.as_bytes()).expect("PEM"))
                .expect("a root");
            let config =
                ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                    .with_safe_default_protocol_versions()
                    .expect("versions")
                    .with_root_certificates(roots)
                    .with_no_client_auth();
            let name = ServerName::try_from(host.to_owned()).expect("a name");
            let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
            let mut server = ServerConnection::new(server.clone()).expect("a server");
            let mut outcome = Ok(());
            for _ in 0..4 {
                let mut wire = Vec::new();
                let _ = client.write_tls(&mut wire);
                let _ = server.read_tls(&mut wire.as_slice());
                let _ = server.process_new_packets();
                let mut wire = Vec::new();
                let _ = server.write_tls(&mut wire);
                if !wire.is_empty() {
                    let _ = client.read_tls(&mut wire.as_slice());
                    outcome = outcome.and(client.process_new_packets().map(drop));
                }
            }
            assert_eq!(outcome.is_ok() && !client.is_handshaking(), good, "{host}: {outcome:?}");
        }
    }
}
