use super::{End, Machine, Process, process::Mortality};
use crate::{link::Link, seed::Seed, world::World};
use ipam_api::names::Attachment;
use std::{sync::PoisonError, thread, time::Duration};

/// Most pods that one runtime has at a time: two of them together ask for more than small blocks have.
const PODS: usize = 6;

/// What starts and stops pods on a node.
#[derive(Debug)]
pub(crate) struct Runtime<'a> {
    machine: &'a Machine,
    link: &'a Link,
    seed: Seed,
    /// Those it began and has not seen deleted.
    pods: Vec<Attachment>,
}

impl<'a> Runtime<'a> {
    /// One without pods.
    pub(crate) fn new(machine: &'a Machine, link: &'a Link, seed: Seed) -> Self {
        Self { machine, link, seed, pods: Vec::new() }
    }

    /// ADD and DEL until all is over.
    pub(crate) fn run(mut self, world: &World) {
        for step in 0.. {
            if world.is_over() {
                return;
            }
            if let Err(end) = self.step(step) {
                world.fails(end);
            }
        }
    }

    fn step(&mut self, step: u64) -> Result<(), anyhow::Error> {
        let mut chance = self.seed.chance(self.link.actor(), step);
        let (add, which, again) = (chance.per_mille(550), chance.below(1 << 32), chance.per_mille(60));
        let _loud = self.machine.quiet.read().unwrap_or_else(PoisonError::into_inner);
        let Some(mut process) = Process::start(self.machine, self.link, chance, Mortality::Mortal) else {
            // The runtime went with its VM.
            self.pods.clear();
            thread::sleep(Duration::from_millis(2));
            return Ok(());
        };
        let adds = add && self.pods.len() < PODS && !self.machine.is_leaving();
        if adds {
            let container = format!("{}-{step}", self.link.actor().replace('/', "-"));
            let attachment = Attachment {
                network: "pods".parse()?,
                container_id: container.parse()?,
                if_name: "eth0".parse()?,
            };
            self.pods.push(attachment.clone());
            return match process.add(&attachment) {
                Ok(()) | Err(End::Died) => Ok(()),
                Err(End::Failed(_)) => {
                    // It pauses before it tries another.
                    thread::sleep(Duration::from_millis(1));
                    Ok(())
                }
                Err(End::Broken(error)) => Err(error),
            };
        }
        if self.pods.is_empty() {
            thread::sleep(Duration::from_millis(2));
            return Ok(());
        }
        let at = usize::try_from(which)? % self.pods.len();
        match process.del(&self.pods[at]) {
            // Some are deleted twice.
            Ok(()) if !again => drop(self.pods.swap_remove(at)),
            Ok(()) | Err(End::Died | End::Failed(_)) => {}
            Err(End::Broken(error)) => return Err(error),
        }
        Ok(())
    }
}
