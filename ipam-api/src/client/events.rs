use super::{Answer, Client, ClientError, Page};
use crate::wire::{Event, Listing};
use jiff::Timestamp;
use reqwest::Method;

/// Which events a list has; what is absent does not restrict it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this thing (`pool/workers`), or of all things of a kind (`pool`).
    pub subject: Option<String>,
    /// Of this actor.
    pub actor: Option<String>,
    /// Of this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

impl EventFilter {
    fn query(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("subject", self.subject.clone()),
            ("actor", self.actor.clone()),
            ("since", self.since.map(|time| time.to_string())),
            ("until", self.until.map(|time| time.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

impl Client {
    /// A page of the events, oldest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(
        &self,
        filter: &EventFilter,
        page: &Page,
    ) -> Result<Answer<Listing<Event>>, ClientError> {
        let request = self.request(Method::GET, &["v1", "events"]);
        request.query(filter.query()).query(page.query()).answer().await
    }
}
