//! Who asks: by a token, a client certificate, the kernel's word at a unix socket, or nobody's.

use super::{Credentials, Service, extract::Conditions, layers::REQUEST_ID, problem::ApiError};
use crate::{
    peer::{Certificate, Peer, Place},
    store::{Actor, Change, Commit, Grant, Known},
};
use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, header, request::Parts, uri::Authority},
};
use ipam_api::{
    names::{NodeName, PoolName},
    token::Secret,
    wire::{ProblemType, Role, TokenState},
};
use std::net::IpAddr;

/// Who asks, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    who: Who,
    place: Place,
    request_id: Option<String>,
}

#[derive(Debug, Clone)]
enum Who {
    /// Nobody said, and this service asks nobody.
    Anyone,
    /// The machine's root or the service's own user, at the unix socket.
    Local(u32),
    /// The owner of a token.
    Token(Known),
    /// A node, by its certificate.
    Certificate(NodeName),
    /// A node by a token that has ended, and so has the claim that it served.
    Former(NodeName),
}

impl Caller {
    /// Finds out who asks.
    ///
    /// # Errors
    /// `unauthenticated` where a credential is needed and none counts; a wrong one is refused even where
    /// none is needed.
    pub(crate) async fn identify(service: &Service, parts: &Parts) -> Result<Self, ApiError> {
        let peer =
            parts.extensions.get::<ConnectInfo<Peer>>().map_or_else(Peer::default, |info| info.0.clone());
        let who = match who(service, &parts.headers, &peer).await {
            Ok(who) => who,
            Err(error) => {
                tracing::warn!(source = %peer.place, reason = error.detail(), "not let in");
                return Err(error);
            }
        };
        let request_id = parts.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
        Ok(Self { who, place: peer.place, request_id })
    }

    /// What it may do.
    pub(crate) fn role(&self) -> Role {
        match &self.who {
            Who::Anyone | Who::Local(_) => Role::Admin,
            Who::Certificate(_) | Who::Former(_) => Role::Node,
            Who::Token(known) => match known.grant {
                Grant::Admin => Role::Admin,
                Grant::Planner => Role::Planner,
                Grant::Viewer => Role::Viewer,
                Grant::Node(..) => Role::Node,
                Grant::Join(_) => Role::Join,
            },
        }
    }

    /// The node that it is, with the only pool it may be in, where it is one.
    pub(crate) fn node(&self) -> Option<(&NodeName, Option<&PoolName>)> {
        match &self.who {
            Who::Certificate(node) => Some((node, None)),
            Who::Token(Known { grant: Grant::Node(node, pool), .. }) => Some((node, pool.as_ref())),
            Who::Anyone | Who::Local(_) | Who::Token(_) | Who::Former(_) => None,
        }
    }

    /// The node that it was, where its claim has ended and its token with it.
    pub(crate) fn former(&self) -> Option<&NodeName> {
        match &self.who {
            Who::Former(node) => Some(node),
            _ => None,
        }
    }

    /// Its token, if it came with one.
    pub(crate) fn token(&self) -> Option<&Known> {
        match &self.who {
            Who::Token(known) => Some(known),
            Who::Anyone | Who::Local(_) | Who::Certificate(_) | Who::Former(_) => None,
        }
    }

    /// As events name it.
    pub(crate) fn name(&self) -> String {
        match &self.who {
            Who::Anyone => "anonymous".to_owned(),
            Who::Local(uid) => format!("uid:{uid}"),
            Who::Former(node)
            | Who::Certificate(node)
            | Who::Token(Known { grant: Grant::Node(node, _), .. }) => {
                format!("node:{node}")
            }
            Who::Token(known) => known.name.clone(),
        }
    }

    /// A change that it asks for.
    pub(crate) fn change(&self, conditions: &Conditions, commit: Commit) -> Result<Change, ApiError> {
        Ok(Change { precondition: conditions.precondition()?, commit, by: self.actor() })
    }

    /// As events have it.
    pub(crate) fn actor(&self) -> Actor {
        Actor {
            name: self.name(),
            token: self.token().map(|known| known.id.clone()),
            source: self.place.to_string(),
            request_id: self.request_id.clone(),
        }
    }
}

/// The guard of every operation that is not public leaves it here.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!("an operation asks who calls it and has no guard");
            ApiError::internal()
        })
    }
}

async fn who(service: &Service, headers: &HeaderMap, peer: &Peer) -> Result<Who, ApiError> {
    if let Some(secret) = bearer(headers)? {
        return token(service, &secret).await;
    }
    match (&peer.certificate, peer.place) {
        (Some(Certificate::OfNode(node)), _) => return Ok(Who::Certificate(node.clone())),
        (Some(Certificate::Useless(why)), _) => return Err(unauthenticated(why.clone())),
        (None, Place::Socket(Some(uid))) if is_own(uid, nix::unistd::geteuid().as_raw()) => {
            return Ok(Who::Local(uid));
        }
        (None, Place::Socket(_)) => {}
        (None, _) if service.credentials == Credentials::Unasked => {
            return if is_rebound(headers, peer.place) {
                Err(unauthenticated(
                    "on loopback nobody is asked for a credential, so it is asked by an IP address or localhost alone: \
                     a web page could have any other name point here; send a token, or name the address",
                ))
            } else {
                Ok(Who::Anyone)
            };
        }
        (None, _) => {}
    }
    Err(unauthenticated(
        "a credential is needed: send a token as Authorization: Bearer … (ipamctl: --token-file or IPAM_TOKEN; \
         cni-shim: tokenFile), or a node's client certificate",
    ))
}

async fn token(service: &Service, secret: &Secret) -> Result<Who, ApiError> {
    let Some(known) = service.store.authenticate(secret).await? else {
        return match service.store.former_node(secret).await? {
            Some(node) => Ok(Who::Former(node)),
            None => Err(unknown()),
        };
    };
    if known.state == TokenState::Expired {
        return Err(unauthenticated(format!(
            "token {} ({}) has expired: ask an admin for a new one (ipamctl token create)",
            known.id, known.name
        )));
    }
    Ok(Who::Token(known))
}

/// Whether a request to loopback came by a name that somebody else may have given it: a web page whose name is made
/// to point here (DNS rebinding) is refused by the browser's own word on whom it asks.
fn is_rebound(headers: &HeaderMap, place: Place) -> bool {
    let Place::Network(peer) = place else { return false };
    let Some(host) = headers.get(header::HOST) else { return false };
    let named = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    let here = named.is_some_and(|named| {
        let host = named.host().trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
    });
    peer.ip().is_loopback() && !here
}

/// Whether a user at the socket is root or the service's own.
fn is_own(uid: u32, own: u32) -> bool {
    /// What the kernel says of every user that this user namespace does not know: many, so nobody.
    const OVERFLOW: u32 = 65534;
    uid == 0 || (uid == own && uid != OVERFLOW)
}

/// The token of `Authorization: Bearer` (RFC 6750), if there is one.
fn bearer(headers: &HeaderMap) -> Result<Option<Secret>, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(unauthenticated("Authorization is there twice: send it once"));
    }
    let text = value.to_str().unwrap_or_default();
    let token = match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => return Err(unauthenticated("Authorization is not of the form: Bearer TOKEN")),
    };
    token.parse().map(Some).map_err(|why: ipam_api::token::InvalidSecret| unauthenticated(why.to_string()))
}

/// A token that counts for nothing.
pub(super) fn unknown() -> ApiError {
    unauthenticated(
        "this token is not known: it was revoked, or is another service's; ask an admin for a new one \
         (ipamctl token create)",
    )
}

fn unauthenticated(detail: impl Into<String>) -> ApiError {
    ApiError::new(ProblemType::Unauthenticated, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_name_that_anyone_can_give_is_not_ours() {
        let rebound = |host: &'static str, peer: &str| {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            is_rebound(&headers, Place::Network(peer.parse().unwrap()))
        };
        for host in ["127.0.0.1:8420", "[::1]:8420", "localhost", "LOCALHOST:1"] {
            assert!(!rebound(host, "127.0.0.1:1"), "{host}");
        }
        for host in ["evil.example:8420", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert!(rebound(host, "[::1]:1"), "{host}");
        }
        assert!(!rebound("ipam.example", "10.0.0.9:1"), "others accepted the danger word by word");
        assert!(!is_rebound(&HeaderMap::new(), Place::Unknown));
    }

    #[test]
    fn root_and_the_services_own_user_are_admin() {
        assert!(is_own(0, 0) && is_own(0, 998) && is_own(998, 998));
        assert!(!is_own(998, 0) && !is_own(999, 998));
        assert!(!is_own(65534, 65534), "users of other namespaces look like this one");
    }
}
