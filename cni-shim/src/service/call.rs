use super::{Marker, Patience, access::Shown};
use crate::{
    cni::netconf::{AccessFiles, NodeConf},
    journal::Uptime,
    log, tally,
};
use ipam_api::{
    client::{Answer, Client, ClientError, Server, Write},
    names::{Attachment, NodeName},
    token::Secret,
    wire::{
        Allocation, AllocationSpec, Node, NodeSpec, NodeStamp, PodRef, Problem, ProblemType, SyncAnswer,
        SyncRequest, Token,
    },
};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// What came of a call.
#[derive(Debug)]
pub enum Heard<T> {
    /// Success.
    Done(T),
    /// A refusal (409 or 507 with one of our types): the service knows the
    /// request and will not have it.
    Refused(Box<Problem>),
    /// Neither: whatever else came back, the node goes on by itself.
    Unreachable {
        /// Why, for people.
        reason: String,
        /// The service's problem, if it is one.
        problem: Option<Box<Problem>>,
    },
}

impl<T> Heard<T> {
    fn of(result: Result<Answer<T>, ClientError>) -> Self {
        match result {
            Ok(answer) => Self::Done(answer.value),
            Err(error) => match error.refusal() {
                Some(problem) => Self::Refused(Box::new(problem.clone())),
                None => Self::Unreachable {
                    problem: error.problem().cloned().map(Box::new),
                    reason: error.to_string(),
                },
            },
        }
    }

    /// Whether the service knows no such thing, and says so itself.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Unreachable { problem: Some(problem), .. } if problem.kind == ProblemType::NotFound)
    }
}

/// The service as one node calls it. Each call runs to its end on the calling
/// thread, which must not be one that changes namespaces meanwhile.
#[derive(Debug, Clone)]
pub struct Service {
    servers: Vec<Server>,
    node: NodeName,
    access: AccessFiles,
    budget: Duration,
    /// When all calls together must have ended.
    end: Option<Instant>,
    marker: Marker,
    patience: Patience,
}

impl Service {
    /// The service of a configuration.
    #[must_use]
    pub fn of(conf: &NodeConf, patience: Patience) -> Self {
        Self {
            servers: conf.servers.clone(),
            node: conf.name.clone(),
            access: conf.access.clone(),
            budget: conf.timeout,
            end: None,
            marker: Marker::of(&conf.state_dir),
            patience,
        }
    }

    /// The same with another budget a call.
    #[must_use]
    pub fn within(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// The same, with all calls together at an end by then, and no later than before. One that
    /// it cuts short says nothing of the service to others: they would have waited longer.
    #[must_use]
    pub fn until(mut self, end: Instant) -> Self {
        self.end = Some(self.end.map_or(end, |before| before.min(end)));
        self
    }

    /// The node as the service knows it.
    #[must_use]
    pub fn node(&self) -> Heard<Node> {
        let heard = self.call(&async |client| client.node(&self.node).await);
        if heard.is_not_found() {
            // A plain answer to a plain question: no outage.
            tally::reached();
            self.marker.clear();
        }
        heard
    }

    /// Registers the node. What comes of it says nothing of other calls, so it is told to nobody but the caller.
    #[must_use]
    pub fn register(&self, spec: &NodeSpec) -> Heard<Node> {
        self.ask(&async |client| client.put_node(&self.node, spec, &Write::default()).await, self.budget)
    }

    /// Records that an attachment holds an address.
    #[must_use]
    pub fn hold(
        &self,
        attachment: &Attachment,
        stamp: &NodeStamp,
        address: IpAddr,
        pod: Option<&PodRef>,
    ) -> Heard<Allocation> {
        let spec = AllocationSpec { address: Some(address), pod: pod.cloned() };
        self.call(&async |client| client.put_allocation(&self.node, attachment, Some(stamp), &spec).await)
    }

    /// Gives an address back.
    #[must_use]
    pub fn release(&self, attachment: &Attachment, stamp: &NodeStamp, address: IpAddr) -> Heard<()> {
        self.call(&async |client| {
            client.delete_allocation(&self.node, attachment, Some(stamp), Some(address)).await
        })
    }

    /// Sends the whole journal.
    #[must_use]
    pub fn sync(&self, stamp: &NodeStamp, journal: &SyncRequest) -> Heard<SyncAnswer> {
        self.call(&async |client| client.sync(&self.node, stamp, journal).await)
    }

    /// Has the service keep a token that this node made. What comes of it says nothing of
    /// other calls, so it is told to nobody but the caller.
    #[must_use]
    pub fn keep_credential(&self, secret: &Secret) -> Heard<Token> {
        self.ask(&async |client| client.put_credential(&self.node, secret).await, self.budget)
    }

    /// One call: the addresses in order, until one has spoken or the budget is spent.
    fn call<T>(&self, request: &impl AsyncFn(&Client) -> Result<Answer<T>, ClientError>) -> Heard<T> {
        if self.patience == Patience::Heed
            && let Some(reason) = self.marker.holds(Uptime::now(), self.budget)
        {
            tally::unreached();
            return Heard::Unreachable { reason, problem: None };
        }
        let left = self.end.map_or(self.budget, |end| end.saturating_duration_since(Instant::now()));
        let heard = self.ask(request, left.min(self.budget));
        match &heard {
            Heard::Done(_) | Heard::Refused(_) => {
                tally::reached();
                if self.marker.clear() {
                    log::info("the service answers again");
                }
            }
            Heard::Unreachable { reason, problem } => {
                tally::unreached();
                match problem {
                    Some(problem) => log::warn(format_args!(
                        "the service answered {}{}: {reason}",
                        problem.status,
                        self.about_credential(problem.kind)
                    )),
                    None => log::warn(reason),
                }
                // The first of several calls has hardly less than one alone.
                if left >= self.budget / 10 * 9
                    && let Err(error) = self.marker.set(Uptime::now(), reason)
                {
                    log::warn(error);
                }
            }
        }
        heard
    }

    /// Which file to look at, where the credential is what is wrong.
    fn about_credential(&self, kind: ProblemType) -> String {
        let of_credential = matches!(kind, ProblemType::Unauthenticated | ProblemType::Forbidden);
        match self.access.token.as_ref().or(self.access.cert.as_ref()).filter(|_| of_credential) {
            Some(path) => format!(" to the credential in {}", path.display()),
            None => String::new(),
        }
    }

    fn ask<T>(
        &self,
        request: &impl AsyncFn(&Client) -> Result<Answer<T>, ClientError>,
        budget: Duration,
    ) -> Heard<T> {
        let unreachable = |reason: String| Heard::Unreachable { reason, problem: None };
        let shown = match Shown::read(&self.access, &self.servers) {
            Ok(shown) => shown,
            Err(reason) => return unreachable(reason),
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return unreachable(format!("no connection can be made: {error}")),
        };
        let end = Instant::now() + budget;
        let mut heard = unreachable(
            if self.servers.is_empty() { "no server is configured" } else { "no time is left" }.to_owned(),
        );
        for (n, server) in self.servers.iter().enumerate() {
            let left = end.saturating_duration_since(Instant::now());
            // What is left is shared out: a dead address must not eat the others' time.
            let share = left / u32::try_from(self.servers.len() - n).unwrap_or(1);
            if share.is_zero() {
                break;
            }
            let now = match Client::new(server.clone(), shown.settings(share)) {
                Ok(client) => Heard::of(runtime.block_on(request(&client))),
                Err(error) => unreachable(error.to_string()),
            };
            match (&heard, &now) {
                // What one of them said (a token that has expired, a node that is none) tells more than that
                // another is away.
                (Heard::Unreachable { problem: Some(_), .. }, Heard::Unreachable { problem: None, .. }) => {}
                _ => heard = now,
            }
            if !matches!(heard, Heard::Unreachable { .. }) {
                break;
            }
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    /// Answers each connection with the next of these, then stops listening.
    fn answers(texts: &[&'static str]) -> (String, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let texts = texts.to_vec();
        let thread = std::thread::spawn(move || {
            for text in texts {
                let (mut stream, _) = listener.accept().unwrap();
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).unwrap();
                stream.write_all(text.as_bytes()).unwrap();
            }
        });
        (address, thread)
    }

    fn service(state: &std::path::Path, servers: &[&str]) -> Service {
        Service {
            servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
            node: "n1".parse().unwrap(),
            access: AccessFiles::default(),
            budget: Duration::from_secs(5),
            end: None,
            marker: Marker::of(state),
            patience: Patience::Heed,
        }
    }

    fn release(service: &Service) -> Heard<()> {
        let stamp = "claim=1, boot=1, seq=1, block=1".parse().unwrap();
        service.release(&crate::journal::entry::tests::attachment("c"), &stamp, "10.0.0.1".parse().unwrap())
    }

    const STALE: &str = "HTTP/1.1 409 Conflict\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\r\n{\"type\":\"/problems/stale-claim\",\"title\":\"t\",\"status\":409,\"detail\":\"another claim\"}";
    const FOREIGN: &str = "HTTP/1.1 409 Conflict\r\nconnection: close\r\n\r\n{\"type\":\"about:blank\"}";
    const MISSING: &str = "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n{\"type\":\"/problems/not-found\",\"title\":\"t\",\"status\":404,\"detail\":\"no node n1\"}";
    const DONE: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

    #[test]
    fn only_our_refusals_are_refusals() {
        let directory = tempfile::tempdir().unwrap();
        let (address, thread) = answers(&[STALE, FOREIGN, MISSING, DONE]);
        let mut service = service(directory.path(), &[&address]);
        service.patience = Patience::Insist;
        assert!(
            matches!(release(&service), Heard::Refused(problem) if problem.kind == ProblemType::StaleClaim)
        );
        let foreign = release(&service);
        assert!(matches!(&foreign, Heard::Unreachable { problem: None, .. }) && !foreign.is_not_found());
        assert!(release(&service).is_not_found());
        assert!(service.marker.said().is_some());
        assert!(matches!(release(&service), Heard::Done(())));
        assert!(service.marker.said().is_none(), "a success clears the marker");
        thread.join().unwrap();
    }

    #[test]
    fn what_one_address_said_tells_more_than_that_another_is_away() {
        let directory = tempfile::tempdir().unwrap();
        let (address, thread) = answers(&[MISSING]);
        let service = service(directory.path(), &[&address, "http://127.0.0.1:1"]);
        assert!(release(&service).is_not_found());
        thread.join().unwrap();
    }

    #[test]
    fn a_call_cut_short_keeps_nobody_else_from_asking() {
        let directory = tempfile::tempdir().unwrap();
        // Connections are taken and nothing is ever answered.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut service = service(directory.path(), &[&format!("http://{}", listener.local_addr().unwrap())]);
        for end in [Instant::now(), Instant::now() + Duration::from_millis(20)] {
            let begin = Instant::now();
            assert!(matches!(release(&service.clone().until(end)), Heard::Unreachable { .. }));
            assert!(begin.elapsed() < service.budget / 2, "not within what was left");
            assert!(service.marker.said().is_none());
        }
        service.budget = Duration::from_millis(20);
        assert!(matches!(
            release(&service.clone().until(Instant::now() + Duration::from_secs(60))),
            Heard::Unreachable { .. }
        ));
        assert!(service.marker.said().is_some(), "that was all the time that a call has");
    }

    #[test]
    fn after_a_failure_nobody_is_asked_for_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let (address, thread) = answers(&[DONE]);
        let service = service(directory.path(), &["http://127.0.0.1:1", &address]);
        assert!(matches!(release(&service), Heard::Done(())), "the second address answers");
        thread.join().unwrap();
        assert!(matches!(release(&service), Heard::Unreachable { .. }));
        let begin = Instant::now();
        assert!(matches!(release(&service), Heard::Unreachable { .. }));
        assert!(begin.elapsed() < Duration::from_millis(100));
    }
}
