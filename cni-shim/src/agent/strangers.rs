//! Looking for strangers on the segment, in a thread of its own: an answer takes a second, and neither a pod nor
//! the datapath waits for it.

use super::{report::Report, speak};
use crate::{
    attach::{self, Asking, Probed},
    cni::NetConf,
    log,
};
use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

/// Between two looks at what is to be asked: a block that was claimed or has grown.
const PAUSE: Duration = Duration::from_secs(1);
/// After something went wrong, or while this is not the node.
const REST: Duration = Duration::from_secs(30);
/// Nodes that were started together do not ask together (RFC 5227, `PROBE_WAIT`).
const SPREAD_MS: u64 = 1_000;

/// Looks for ever; strangers are asked again each time that `again` has passed.
pub(super) fn watch(conf: &NetConf, report: &Arc<Report>, again: Duration) -> io::Result<JoinHandle<()>> {
    let (conf, report) = (conf.clone(), Arc::clone(report));
    let work = move || {
        thread::sleep(Duration::from_millis(getrandom::u64().unwrap_or_default() % SPREAD_MS));
        let mut watch = Watch { conf, report, again, complained: None, untold: false };
        loop {
            thread::sleep(watch.round());
        }
    };
    thread::Builder::new().name("strangers".to_owned()).spawn(work)
}

struct Watch {
    conf: NetConf,
    report: Arc<Report>,
    again: Duration,
    /// What was complained of last: the same again is not said again.
    complained: Option<String>,
    /// Whether the ledger has not heard of a change.
    untold: bool,
}

impl Watch {
    /// Asks if there is something to ask; how long to wait then.
    fn round(&mut self) -> Duration {
        match attach::probe_block(&self.conf, self.again) {
            Ok(Asking::Nothing) => {}
            // Whoever brings the node back does not mind half a minute.
            Ok(Asking::Elsewhere) => return REST,
            Ok(Asking::Asked(probed)) => {
                tell(&probed);
                self.complained = None;
                self.untold |= !probed.came.is_empty() || !probed.left.is_empty();
            }
            Err(error) => return self.complain(error.to_string()),
        }
        if self.untold {
            if let Err(error) = speak(&self.conf) {
                return self.complain(format!("the service has not heard of strangers: {error}"));
            }
            self.report.spoken();
            self.untold = false;
        }
        PAUSE
    }

    fn complain(&mut self, words: String) -> Duration {
        if self.complained.as_ref() != Some(&words) {
            log::warn(&words);
            self.complained = Some(words);
        }
        REST
    }
}

fn tell(probed: &Probed) {
    let Probed { asked, came, left, indiscriminate } = probed;
    log::info(format_args!("the segment was asked for {asked} addresses"));
    for mac in indiscriminate {
        log::warn(format_args!(
            "{mac} answers for addresses that nobody has: strangers behind it cannot be told from it"
        ));
    }
    for (stranger, pod) in came {
        let (address, mac) = (stranger.address, stranger.mac);
        match pod {
            None => log::error(format_args!(
                "conflict: {mac} answers for {address} of this node's block; no pod gets it until that machine \
                 gives it up"
            )),
            Some(pod) => log::error(format_args!(
                "conflict: {mac} answers for {address}, which {pod} has: packets may go astray until that machine \
                 gives it up"
            )),
        }
    }
    for stranger in left {
        log::warn(format_args!("{} answers for {} no more: pods may get it", stranger.mac, stranger.address));
    }
}
