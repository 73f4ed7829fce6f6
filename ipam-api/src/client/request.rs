//! The one way a request is made and its answer judged.

use super::{Answer, Apply, Client, ClientError, ETag, Precondition, Unreachability, Write, tls};
use crate::wire::{NODE_HEADER, NodeStamp, Problem};
use reqwest::{
    Method, Response, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH},
    header::{IF_NONE_MATCH, RETRY_AFTER},
};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// Longest body read, so that a stray server cannot fill the memory: a list of
/// [`crate::wire::MAX_LIMIT`] items stays far below.
const MAX_BODY: usize = 64 << 20;
/// Longest piece of a strange body that an error quotes, in characters.
const EXCERPT: usize = 200;

/// A request in the making.
pub(super) struct Request<'a> {
    client: &'a Client,
    method: Method,
    url: Result<Url, ClientError>,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    failed: Option<ClientError>,
}

impl Client {
    /// A request for the path of these segments, each percent-encoded.
    pub(super) fn request(&self, method: Method, segments: &[&str]) -> Request<'_> {
        let mut url = self.base.clone();
        let extended = url.path_segments_mut().map(|mut path| {
            path.clear().extend(segments);
        });
        let url = extended.map(|()| url).map_err(|()| ClientError::InvalidServer {
            server: self.server.to_string(),
            reason: "it cannot have a path".to_owned(),
        });
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/problem+json"));
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, token.header());
        }
        Request { client: self, method, url, headers, body: None, failed: None }
    }
}

impl Request<'_> {
    /// Adds query parameters.
    pub(super) fn query<K: AsRef<str>>(mut self, pairs: impl IntoIterator<Item = (K, String)>) -> Self {
        if let Ok(url) = &mut self.url {
            for (name, value) in pairs {
                url.query_pairs_mut().append_pair(name.as_ref(), &value);
            }
        }
        self
    }

    /// Adds how the change is asked for.
    pub(super) fn write(self, write: &Write) -> Self {
        let request = match &write.precondition {
            Precondition::None => self,
            Precondition::Unchanged(etag) => self.header(IF_MATCH, etag.as_str()),
            Precondition::Absent => self.header(IF_NONE_MATCH, "*"),
        };
        match write.apply {
            Apply::Really => request,
            Apply::DryRun => request.query([("dryRun", "true".to_owned())]),
        }
    }

    /// Adds which of a node's lives speaks.
    pub(super) fn stamp(self, stamp: Option<&NodeStamp>) -> Self {
        match stamp {
            Some(stamp) => self.header(HeaderName::from_static(NODE_HEADER), &stamp.to_string()),
            None => self,
        }
    }

    /// Adds a JSON body.
    pub(super) fn json(self, body: &impl Serialize) -> Self {
        self.body(body, "application/json")
    }

    /// Adds a merge patch (RFC 7396).
    pub(super) fn merge_patch(self, body: &impl Serialize) -> Self {
        self.body(body, "application/merge-patch+json")
    }

    fn body(mut self, body: &impl Serialize, media_type: &'static str) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => self.body = Some(bytes),
            Err(error) => self.failed = Some(ClientError::Unsendable { reason: error.to_string() }),
        }
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        self
    }

    fn header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => drop(self.headers.insert(name, value)),
            Err(_) => {
                let reason = format!("header {name} cannot carry {value:?}");
                self.failed = Some(ClientError::Unsendable { reason });
            }
        }
        self
    }

    /// Sends it and reads an answer that has a body.
    pub(super) async fn answer<T: DeserializeOwned>(self) -> Result<Answer<T>, ClientError> {
        let server = self.client.server.to_string();
        let Answer { value: (), etag, status, body } = self.send().await?;
        let value = serde_json::from_slice(&body)
            .map_err(|error| unexpected(server, status, error.to_string(), &body))?;
        Ok(Answer { value, etag, status, body })
    }

    /// Sends it and reads an answer whose body, if any, does not matter.
    pub(super) async fn send(self) -> Result<Answer<()>, ClientError> {
        let server = self.client.server.to_string();
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let mut request = self.client.http.request(self.method, self.url?).headers(self.headers);
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let mut response = request.send().await.map_err(|error| unreachable(server.clone(), &error))?;
        let status = response.status().as_u16();
        let etag = header(&response, &ETAG).map(ETag::new);
        let retry_after = header(&response, &RETRY_AFTER).and_then(|text| text.parse().ok());
        let body = read(&mut response, &server).await?;
        if (200..300).contains(&status) {
            return Ok(Answer { value: (), etag, status, body });
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(ClientError::Problem {
                status,
                problem: Box::new(problem),
                retry_after: retry_after.map(Duration::from_secs),
            }),
            Err(_) => {
                let reason = response.status().canonical_reason().unwrap_or("no problem document");
                Err(unexpected(server, status, reason.to_owned(), &body))
            }
        }
    }
}

fn header(response: &Response, name: &HeaderName) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

async fn read(response: &mut Response, server: &str) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(server.to_owned(), &error))? {
        if body.len() + chunk.len() > MAX_BODY {
            let reason = format!("the body is longer than {MAX_BODY} bytes");
            return Err(unexpected(server.to_owned(), response.status().as_u16(), reason, &body));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unexpected(server: String, status: u16, reason: String, body: &[u8]) -> ClientError {
    let start = &body[..body.len().min(4 * EXCERPT)];
    let excerpt = String::from_utf8_lossy(start).chars().take(EXCERPT).collect();
    ClientError::Unexpected { server, status, reason, excerpt }
}

fn unreachable(server: String, error: &reqwest::Error) -> ClientError {
    let (how, reason) = if let Some(reason) = tls::failure(error) {
        (Unreachability::Tls, reason)
    } else if error.is_timeout() {
        (Unreachability::Timeout, "no answer in time".to_owned())
    } else if error.is_connect() {
        (Unreachability::NoConnection, tls::root_cause(error))
    } else {
        (Unreachability::Broken, tls::root_cause(error))
    };
    ClientError::Unreachable { server, how, reason }
}
