//! What is shown to the service, and whom it is verified by: read from files with every call.

use crate::cni::netconf::AccessFiles;
use ipam_api::client::{Authorities, ClientError, Identity, Roots, Server, Settings, Token};
use std::{fs, path::Path, time::Duration};

/// What the files hold.
#[derive(Debug)]
pub(super) struct Shown {
    token: Option<Token>,
    authorities: Authorities,
    identity: Option<Identity>,
}

impl Shown {
    /// Reads the token, and the certificates where one of these servers has a use for them.
    ///
    /// # Errors
    /// Which file cannot be used and why; never what is in it.
    pub(super) fn read(files: &AccessFiles, servers: &[Server]) -> Result<Self, String> {
        let token = match &files.token {
            None => None,
            Some(path) => {
                let text = read("tokenFile", path)?;
                let token = Token::new(&String::from_utf8_lossy(&text));
                Some(token.map_err(|error| said("tokenFile", path, &error))?)
            }
        };
        if !servers.iter().any(Server::is_tls) {
            return Ok(Self { token, authorities: Authorities::default(), identity: None });
        }
        let authorities = match &files.ca {
            // Nobody vouches then: the system's certificates are not this plugin's to read.
            None => Authorities::default(),
            Some(path) => {
                Authorities::from_pem(&read("caFile", path)?).map_err(|error| said("caFile", path, &error))?
            }
        };
        let identity = match (&files.cert, &files.key) {
            (Some(cert), Some(key)) => {
                let identity = Identity::from_pem(&read("certFile", cert)?, &read("keyFile", key)?);
                Some(identity.map_err(|error| said("certFile", cert, &error))?)
            }
            (Some(_), None) | (None, Some(_)) => {
                return Err("certFile and keyFile go together: give both or none".to_owned());
            }
            (None, None) => None,
        };
        Ok(Self { token, authorities, identity })
    }

    /// How to talk to one address of the service.
    pub(super) fn settings(&self, share: Duration) -> Settings {
        Settings {
            connect_timeout: share,
            timeout: share,
            token: self.token.clone(),
            roots: Roots::Only(self.authorities.clone()),
            identity: self.identity.clone(),
        }
    }
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{key} {}: {error}", path.display()))
}

fn said(key: &str, path: &Path, error: &ClientError) -> String {
    format!("{key} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cni::netconf::{NodeConf, TIMEOUT},
        service::{Heard, Marker, Patience, Service},
    };
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::{
        ServerConfig, ServerConnection, StreamOwned,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };
    use std::{
        io::{Read, Write},
        net::{Shutdown, TcpListener},
        sync::Arc,
        thread,
    };

    /// A CA, and the address of a service whose certificate it signed, which answers each connection once.
    fn service() -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let own = own.signed_by(&key, &Issuer::new(params, ca_key)).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(own)],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            );
        let config = Arc::new(config.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream =
                    StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
                if stream.read(&mut [0; 4096]).is_ok() {
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
                let _ = stream.sock.shutdown(Shutdown::Write);
                let _ = stream.sock.read_to_end(&mut Vec::new());
            }
        });
        (ca, address)
    }

    #[test]
    fn a_service_is_verified_by_the_named_file_and_by_nothing_else() {
        let (ca, address) = service();
        let (stranger, _) = service();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let conf = NodeConf {
            servers: vec![address.parse().unwrap()],
            name: "n1".parse().unwrap(),
            state_dir: directory.path().to_owned(),
            data_dir: directory.path().join("data"),
            access: AccessFiles { ca: Some(file.clone()), ..AccessFiles::default() },
            timeout: TIMEOUT * 10,
            boot_id_file: "/dev/null".into(),
        };
        let release = |conf: &NodeConf| {
            let stamp = "claim=1, boot=1, seq=1, block=1".parse().unwrap();
            let attachment = crate::journal::entry::tests::attachment("c");
            let service = Service::of(conf, Patience::Insist);
            service.release(&attachment, &stamp, "10.0.0.1".parse().unwrap())
        };
        fs::write(&file, &ca).unwrap();
        assert!(matches!(release(&conf), Heard::Done(())));

        // The file is read anew with every call.
        fs::write(&file, &stranger).unwrap();
        let heard = release(&conf);
        assert!(
            matches!(&heard, Heard::Unreachable { reason, problem: None } if reason.contains("no CA that is trusted")),
            "{heard:?}"
        );
        assert!(Marker::of(&conf.state_dir).said().is_some(), "like any outage");
        let trusting = NodeConf { access: AccessFiles::default(), ..conf };
        assert!(matches!(release(&trusting), Heard::Unreachable { reason, .. } if reason.contains("caFile")));
    }
}
