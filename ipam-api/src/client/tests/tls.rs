//! TLS: real handshakes with a service whose certificates are made here.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::sync::Arc;

/// A CA.
struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

/// A certificate and its key, PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    fn sign(&self, name: &str) -> Pair {
        self.sign_with(&CertificateParams::new([name.to_owned()]).unwrap())
    }

    fn sign_with(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn roots(&self) -> Roots {
        Roots::Only(Authorities::from_pem(self.pem.as_bytes()).unwrap())
    }
}

/// A service with this certificate that answers once; it wants a client certificate of that CA where one is
/// given. What it was asked, after the client certificate that was shown to it.
fn secure(pair: &Pair, client_ca: Option<&Ca>) -> (Server, mpsc::Receiver<String>) {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = match client_ca {
        None => builder.unwrap().with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.unwrap().with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    let (seen, requests) = mpsc::channel();
    thread::spawn(move || {
        let mut connection = ServerConnection::new(config).unwrap();
        let mut stream = listener.accept().unwrap().0;
        if connection.complete_io(&mut stream).is_err() {
            let _ = connection.write_tls(&mut stream);
            // Closed with something unread, the connection would be reset, and the alert lost with it.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
            return;
        }
        let shown = connection.peer_certificates().map_or(0, <[CertificateDer<'_>]>::len);
        seen.send(shown.to_string()).unwrap();
        serve(StreamOwned::new(connection, stream), &[answer("200 OK", "", VNET)], &seen);
    });
    (server, requests)
}

async fn ask(server: Server, settings: Settings) -> Result<Vnet, ClientError> {
    Ok(Client::new(server, settings)?.vnet(&"prod".parse().unwrap()).await?.value)
}

#[track_caller]
fn tls_failure(result: Result<Vnet, ClientError>) -> String {
    match result.unwrap_err() {
        ClientError::Unreachable { how: Unreachability::Tls, reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_right_authority_vouches_for_a_service() {
    let ca = Ca::new();
    let (server, requests) = secure(&ca.sign("127.0.0.1"), None);
    let both = format!("{}{}", Ca::new().pem, ca.pem);
    let roots = Roots::Only(Authorities::from_pem(both.as_bytes()).unwrap());
    let token = Some(Token::new("s3cret").unwrap());
    let vnet = ask(server, Settings { roots, token, ..Settings::default() }).await.unwrap();
    assert_eq!(vnet.name.as_str(), "prod");
    assert_eq!(requests.recv().unwrap(), "0", "no client certificate");
    assert!(requests.recv().unwrap().contains("authorization: Bearer s3cret\r\n"));
}

#[tokio::test]
async fn whoever_is_not_the_service_is_unreachable_and_hears_nothing() {
    let ca = Ca::new();
    let mut old = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    old.not_before = date_time_ymd(2020, 1, 1);
    old.not_after = date_time_ymd(2020, 2, 1);
    for (pair, why) in [
        (Ca::new().sign("127.0.0.1"), "no CA that is trusted here"),
        (ca.sign("10.0.0.1"), "not valid for name"),
        (ca.sign_with(&old), "expired"),
    ] {
        let (server, requests) = secure(&pair, None);
        let settings =
            Settings { roots: ca.roots(), token: Some(Token::new("s3cret").unwrap()), ..Settings::default() };
        let reason = tls_failure(ask(server, settings).await);
        assert!(reason.starts_with("TLS: ") && reason.contains(why), "{reason}");
        assert!(!requests.iter().any(|request| request.contains("s3cret")));
    }

    // One that speaks no TLS.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server: Server = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = stream.read(&mut [0; 4096]);
    });
    let reason = tls_failure(ask(server, Settings { roots: ca.roots(), ..Settings::default() }).await);
    assert!(reason.contains("does not speak TLS"), "{reason}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_whoever_asks_for_one() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let own = clients.sign("node-1");
    let identity = Identity::from_pem(own.certificate.as_bytes(), own.key.as_bytes()).unwrap();
    assert_eq!(format!("{identity:?}"), "Identity(…)");
    let (server, requests) = secure(&ca.sign("127.0.0.1"), Some(&clients));
    let settings = Settings { roots: ca.roots(), identity: Some(identity.clone()), ..Settings::default() };
    ask(server, settings).await.unwrap();
    assert_eq!(requests.recv().unwrap(), "1");

    // Without one, or with one of another CA, the service is not reached.
    let stranger = Ca::new().sign("node-1");
    let stranger = Identity::from_pem(stranger.certificate.as_bytes(), stranger.key.as_bytes()).unwrap();
    for identity in [None, Some(stranger)] {
        let (server, _requests) = secure(&ca.sign("127.0.0.1"), Some(&clients));
        let settings = Settings { roots: ca.roots(), identity, ..Settings::default() };
        let reason = tls_failure(ask(server, settings).await);
        assert!(reason.contains("it refused the connection"), "{reason}");
    }
}

#[test]
fn what_tls_cannot_use_is_named_and_not_shown() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (own, twin) = (ca.sign("node-1"), other.sign("node-1"));
    let said = |error: ClientError| match error {
        ClientError::InvalidTls { reason } => reason,
        other => panic!("{other:?}"),
    };
    for nothing in ["", "hello", &own.key] {
        let reason = said(Authorities::from_pem(nothing.as_bytes()).unwrap_err());
        assert!(reason.contains("no certificate in PEM"), "{reason}");
    }
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(said(Authorities::from_pem(garbage.as_bytes()).unwrap_err()).contains("cannot be used"));
    let pairs = [
        (&own.certificate, &own.certificate, "no private key"),
        (&own.key, &own.key, "no certificate in PEM"),
        (&own.certificate, &twin.key, "not of this private key"),
    ];
    for (certificate, key, why) in pairs {
        let reason = said(Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap_err());
        assert!(reason.contains(why) && !reason.contains(key.as_str()), "{reason}");
    }
    let both = format!("{}{}", own.certificate, own.key);
    assert!(Identity::from_pem(both.as_bytes(), both.as_bytes()).is_ok());
}

#[test]
fn an_https_service_that_nobody_vouches_for_is_not_even_asked() {
    let nobody = Settings { roots: Roots::Only(Authorities::default()), ..Settings::default() };
    let error = Client::new("https://10.0.0.1:8420".parse().unwrap(), nobody.clone()).unwrap_err();
    assert!(error.to_string().contains("--ca-file"), "{error}");
    // Without TLS nobody has to.
    assert!(Client::new("http://10.0.0.1:8420".parse().unwrap(), nobody).is_ok());
}
