//! How an actor asks the service: over its own wire, with every question and answer written down.

use crate::{
    history::{Ask, Call, Recorder, Said},
    network::{Network, Weather, Wire},
};
use anyhow::{Context, Result};
use ipam_api::{
    client::{AllPages, Answer, Client, ClientError, Settings},
    wire::{Problem, ProblemType},
};
use std::{sync::Arc, time::Duration};
use tokio::runtime::Runtime;

/// Longest wait for an answer: less than a shim has by default, so that a run sees more.
const BUDGET: Duration = Duration::from_millis(600);
/// The same while all is well: the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// One actor's connection to the service.
#[derive(Debug)]
pub(crate) struct Link {
    actor: String,
    hurried: Client,
    patient: Client,
    runtime: Runtime,
    recorder: Arc<Recorder>,
    wire: Arc<Wire>,
}

/// What came of a call (P5).
#[derive(Debug)]
pub(crate) enum Reply<T> {
    /// Success.
    Done(Answer<T>),
    /// 409 or 507 with one of our types.
    Refused(Box<Problem>),
    /// Anything else; with the service's problem, if it is one.
    Else(Option<Box<Problem>>),
}

impl<T> Reply<T> {
    /// What was answered, if it was a success.
    pub(crate) fn done(self) -> Option<Answer<T>> {
        match self {
            Self::Done(answer) => Some(answer),
            Self::Refused(_) | Self::Else(_) => None,
        }
    }

    /// Whether the service knows no such thing, and says so itself.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Else(Some(problem)) if problem.kind == ProblemType::NotFound)
    }
}

impl Link {
    /// An actor's link over a wire of its own.
    pub(crate) fn new(actor: &str, network: &Network, recorder: &Arc<Recorder>) -> Result<Self> {
        let (wire, address) = network.wire(actor)?;
        let client = |timeout| -> Result<Client> {
            let settings = Settings { timeout, connect_timeout: timeout, ..Settings::default() };
            Ok(Client::new(format!("http://{address}").parse()?, settings)?)
        };
        Ok(Self {
            actor: actor.to_owned(),
            hurried: client(BUDGET)?,
            patient: client(PATIENCE)?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            recorder: Arc::clone(recorder),
            wire,
        })
    }

    /// Who asks.
    pub(crate) fn actor(&self) -> &str {
        &self.actor
    }

    /// Its wire.
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Where it writes down.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    fn client(&self) -> &Client {
        match self.wire.weather() {
            Weather::Foul => &self.hurried,
            Weather::Fair => &self.patient,
        }
    }

    /// Asks for something without which there is no run; not written down.
    pub(crate) fn found<T>(
        &self,
        what: &str,
        request: impl AsyncFnOnce(&Client) -> Result<Answer<T>, ClientError>,
    ) -> Result<T> {
        let answer = self.runtime.block_on(request(self.client()));
        Ok(answer.with_context(|| format!("asking for {what}"))?.value)
    }

    /// Asks for all pages of a list, likewise.
    pub(crate) fn found_all<T>(
        &self,
        what: &str,
        request: impl AsyncFnOnce(&Client) -> Result<AllPages<T>, ClientError>,
    ) -> Result<Vec<T>> {
        let pages = self.runtime.block_on(request(self.client()));
        Ok(pages.with_context(|| format!("asking for {what}"))?.into_items())
    }

    /// Asks, and writes down what was asked and, in the words of `tell`, what came back.
    pub(crate) fn call<T>(
        &self,
        ask: Ask,
        tell: impl FnOnce(&T) -> String,
        request: impl AsyncFnOnce(&Client) -> Result<Answer<T>, ClientError>,
    ) -> Reply<T> {
        let asked = self.recorder.tick();
        let result = self.runtime.block_on(request(self.client()));
        let said = match &result {
            Ok(answer) => Said::Done {
                version: answer.etag.as_ref().map(|etag| etag.as_str().to_owned()),
                value: tell(&answer.value),
            },
            Err(error) => said(error),
        };
        let answered = self.recorder.tick();
        let call = Call { actor: self.actor.clone(), asked, answered, ask, said };
        self.recorder.with(|history| history.calls.push(call));
        match result {
            Ok(answer) => Reply::Done(answer),
            Err(error) => match error.refusal() {
                Some(problem) => Reply::Refused(Box::new(problem.clone())),
                None => Reply::Else(error.problem().cloned().map(Box::new)),
            },
        }
    }
}

fn said(error: &ClientError) -> Said {
    match error.problem() {
        Some(problem) if matches!(problem.kind, ProblemType::Internal | ProblemType::MalformedRequest) => {
            Said::Defect(problem.detail.clone())
        }
        // Whoever cannot answer now may have done it all the same.
        Some(problem) if problem.kind != ProblemType::Unavailable => {
            Said::Refused(problem.kind, problem.detail.clone())
        }
        _ => Said::Nothing(error.to_string()),
    }
}
