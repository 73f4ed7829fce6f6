//! Who vouches for an `https` service, and who we are to it.

use super::{ClientError, Server};
use reqwest::{Certificate, ClientBuilder};
use rustls::{
    CertificateError, Error as TlsError, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use std::{error::Error, fmt, io, sync::Once};

/// Who vouches for an `https` service.
#[derive(Debug, Clone, Default)]
pub enum Roots {
    /// Whom this system trusts, read from its certificate store with every client made.
    #[default]
    System,
    /// These CAs and nobody else: the system's certificates are not even read.
    Only(Authorities),
}

/// Certificates of CAs; none of them vouch for nobody.
#[derive(Clone, Default)]
pub struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// The certificates of a PEM file; whatever else is in it is passed over.
    ///
    /// # Errors
    /// [`ClientError::InvalidTls`] if there is none, or one that is none of a CA.
    pub fn from_pem(pem: &[u8]) -> Result<Self, ClientError> {
        let all = certificates(pem)?;
        let mut store = RootCertStore::empty();
        for certificate in &all {
            store
                .add(certificate.clone())
                .map_err(|error| invalid(format!("a certificate in it cannot be used: {error}")))?;
        }
        Ok(Self(all))
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.0.len())
    }
}

/// A client certificate with its private key; its debug form does not show them.
#[derive(Clone)]
pub struct Identity(reqwest::Identity);

impl Identity {
    /// A certificate, with those that lead to its CA if need be, and its private key; both PEM.
    ///
    /// # Errors
    /// [`ClientError::InvalidTls`] if either is missing, or they do not belong together.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, ClientError> {
        let private = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| invalid("there is no private key in PEM".to_owned()))?;
        let chain = certificates(certificate)?;
        CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| match error {
            TlsError::InconsistentKeys(_) => invalid(
                "the certificate is not of this private key: give the two that belong together".to_owned(),
            ),
            error => invalid(format!("certificate and private key cannot be used: {error}")),
        })?;
        // One file may hold both.
        let both = if certificate == key { key.to_vec() } else { [certificate, b"\n", key].concat() };
        reqwest::Identity::from_pem(&both).map(Self).map_err(|error| invalid(root_cause(&error)))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

fn invalid(reason: String) -> ClientError {
    ClientError::InvalidTls { reason }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| invalid("a certificate in it is no PEM".to_owned()))?;
    if all.is_empty() {
        return Err(invalid(
            "there is no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----".to_owned(),
        ));
    }
    Ok(all)
}

/// The HTTP client that verifies `server` by `roots`.
pub(super) fn set_up(
    mut builder: ClientBuilder,
    server: &Server,
    roots: Roots,
    identity: Option<Identity>,
) -> Result<reqwest::Client, ClientError> {
    static PROVIDER: Once = Once::new();
    // A process has one provider: whoever installed another meant it.
    PROVIDER.call_once(|| drop(ring::default_provider().install_default()));
    builder = match (server.is_tls(), roots) {
        // Without TLS as well, the builder would read the system's certificates.
        (false, _) => builder.tls_certs_only([]),
        (true, Roots::System) => builder,
        (true, Roots::Only(Authorities(all))) if all.is_empty() => {
            return Err(invalid(format!(
                "nobody vouches for {server}: name the file with its CA's certificate (ipamctl: --ca-file; cni-shim: caFile)"
            )));
        }
        (true, Roots::Only(Authorities(all))) => {
            let all = all.iter().map(|certificate| Certificate::from_der(certificate));
            let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| invalid(root_cause(&error)))?;
            builder.tls_certs_only(all)
        }
    };
    if let Some(Identity(identity)) = identity.filter(|_| server.is_tls()) {
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| match server.is_tls() {
        true => invalid(format!(
            "nobody can vouch for {server}: {}: name the file with its CA's certificate (ipamctl: --ca-file)",
            root_cause(&error)
        )),
        false => ClientError::InvalidServer { server: server.to_string(), reason: root_cause(&error) },
    })
}

/// Why TLS did not come about, if that is what went wrong.
pub(super) fn failure(error: &reqwest::Error) -> Option<String> {
    let mut cause: &dyn Error = error;
    loop {
        // An I/O error hides the error it was made of: that one is no source of it.
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let here = inner.and_then(|inner| inner.downcast_ref::<TlsError>()).or(cause.downcast_ref());
        if let Some(error) = here {
            return Some(said(error));
        }
        cause = inner.map(|inner| inner as &dyn Error).or(cause.source())?;
    }
}

fn said(error: &TlsError) -> String {
    match error {
        // A bad signature is what a CA made anew under its old name looks like.
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "TLS: no CA that is trusted here vouches for its certificate".to_owned()
        }
        TlsError::AlertReceived(alert) => format!("TLS: it refused the connection ({alert:?})"),
        TlsError::InvalidMessage(_) => format!("TLS: what answers does not speak TLS ({error})"),
        error => format!("TLS: {error}"),
    }
}

/// The innermost cause: the layers above only repeat the URL.
pub(super) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
