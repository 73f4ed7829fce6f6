//! What is asked by people and programs that look.

use crate::{figures::Figures, service::Service};
use anyhow::{Context, Result, ensure};
use ipam_api::client::Client;
use std::time::{Duration, Instant};

/// Nobody has asked for so long.
const PAUSE: Duration = Duration::from_secs(3);

/// Times of `GET /v1/capacity`.
pub(crate) struct Asked {
    /// When the plan had changed.
    pub(crate) of_a_new_plan: Duration,
    /// Ten times a second.
    pub(crate) often: Figures,
    /// After a pause.
    pub(crate) after_a_pause: Duration,
}

/// Asks for capacity.
pub(crate) async fn capacity(client: &Client, times: usize) -> Result<Asked> {
    let once = async || -> Result<Duration> {
        let began = Instant::now();
        client.capacity().await?;
        Ok(began.elapsed())
    };
    let of_a_new_plan = once().await?;
    let mut figures = Figures::new()?;
    let whole = Instant::now();
    for _ in 0..times {
        tokio::time::sleep(Duration::from_millis(100)).await;
        figures.done(once().await?);
    }
    figures.took = whole.elapsed();
    tokio::time::sleep(PAUSE).await;
    Ok(Asked { of_a_new_plan, often: figures, after_a_pause: once().await? })
}

/// Times of all pages of a list, read from its beginning to its end; how many rows.
pub(crate) async fn pages(service: &Service, token: &str, path: &str) -> Result<(usize, Figures)> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let mut figures = Figures::new()?;
    let whole = Instant::now();
    let (mut after, mut rows) = (String::new(), 0);
    loop {
        let url = format!("http://{}{path}", service.address());
        let mut query = vec![("limit", "1000")];
        if !after.is_empty() {
            query.push(("after", &after));
        }
        let asked = Instant::now();
        let answer = http.get(url).bearer_auth(token).query(&query).send().await?;
        ensure!(answer.status().is_success(), "{path}: {}", answer.status());
        let body = answer.bytes().await?;
        figures.done(asked.elapsed());
        let page: serde_json::Value = serde_json::from_slice(&body)?;
        rows += page["items"].as_array().context("items")?.len();
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    figures.took = whole.elapsed();
    Ok((rows, figures))
}
