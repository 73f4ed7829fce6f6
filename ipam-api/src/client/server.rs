use super::ClientError;
use reqwest::Url;
use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where a service listens: `https://HOST:PORT`, `http://HOST:PORT` or `unix:///path/of/socket`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    place: Place,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Http(Url),
    Https(Url),
    Unix(PathBuf),
}

impl Server {
    /// The socket's path, where the service listens on one.
    #[must_use]
    pub fn socket_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Unix(path) => Some(path),
            Place::Http(_) | Place::Https(_) => None,
        }
    }

    /// The IP address, where one is named rather than a host name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.place {
            Place::Http(url) | Place::Https(url) => {
                let host = url.host_str()?;
                host.trim_start_matches('[').trim_end_matches(']').parse().ok()
            }
            Place::Unix(_) => None,
        }
    }

    /// Whether the service proves who it is, by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.place, Place::Https(_))
    }

    /// What request paths are appended to.
    pub(super) fn base(&self) -> Result<Url, ClientError> {
        match &self.place {
            Place::Http(url) | Place::Https(url) => Ok(url.clone()),
            Place::Unix(_) => {
                Url::parse("http://localhost/").map_err(|error| invalid(&self.text, &error.to_string()))
            }
        }
    }
}

fn invalid(server: &str, reason: &str) -> ClientError {
    ClientError::InvalidServer { server: server.to_owned(), reason: reason.to_owned() }
}

impl FromStr for Server {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        const FORMS: &str = "write https://HOST:PORT, http://HOST:PORT or unix:///path/of/socket";
        let place = if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(invalid(text, "the socket's path is not absolute: write unix:///path/of/socket"));
            }
            Place::Unix(PathBuf::from(path))
        } else {
            let url = Url::parse(text).map_err(|error| invalid(text, &format!("{error}: {FORMS}")))?;
            if !url.username().is_empty() || url.password().is_some() {
                return Err(invalid(text, "credentials do not belong into a URL: give a token instead"));
            }
            if url.query().is_some() || url.fragment().is_some() || !matches!(url.path(), "" | "/") {
                return Err(invalid(text, &format!("it has a path, a query or a fragment: {FORMS}")));
            }
            match url.scheme() {
                "http" => Place::Http(url),
                "https" => Place::Https(url),
                _ => return Err(invalid(text, FORMS)),
            }
        };
        Ok(Self { place, text: text.to_owned() })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        match text.parse::<Server>() {
            Ok(server) => server.base().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn addresses_and_sockets_are_servers() {
        let server: Server = "http://127.0.0.1:8420".parse().unwrap();
        assert_eq!(server.ip(), Some([127, 0, 0, 1].into()));
        assert_eq!(server.base().unwrap().as_str(), "http://127.0.0.1:8420/");
        let server: Server = "http://[fd00::1]:8420/".parse().unwrap();
        assert_eq!(server.ip(), Some("fd00::1".parse().unwrap()));
        assert!(!server.is_tls());
        let server: Server = "https://[fd00::1]:8420".parse().unwrap();
        assert_eq!((server.ip(), server.is_tls()), (Some("fd00::1".parse().unwrap()), true));
        assert_eq!(server.base().unwrap().as_str(), "https://[fd00::1]:8420/");
        let server: Server = "unix:///run/ipam/api.sock".parse().unwrap();
        assert_eq!(server.socket_path(), Some(Path::new("/run/ipam/api.sock")));
        assert_eq!(server.to_string(), "unix:///run/ipam/api.sock");
        assert_eq!("http://localhost:1".parse::<Server>().unwrap().ip(), None);
    }

    #[test]
    fn what_is_no_server_says_the_cure() {
        for text in ["", "127.0.0.1:8420", "ftp://10.0.0.1", "http://", "http://10.0.0.1/v1", "http://a/?b"] {
            assert!(reason(text).contains("write https://HOST:PORT"), "{text}: {}", reason(text));
        }
        assert!(reason("unix://run/ipam.sock").contains("not absolute"));
        assert!(reason("http://me:secret@10.0.0.1").contains("token"));
    }
}
