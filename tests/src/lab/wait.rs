use anyhow::{Result, bail};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Asks every 5 ms until the answer is there; fails after `deadline` naming `what` it waited for.
pub fn until<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if started.elapsed() > deadline {
            bail!("waited {deadline:?} in vain: {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
