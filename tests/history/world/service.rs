use super::{
    database::{Database, Server},
    replica::Replica,
    setting::Setting,
};
use crate::network::Network;
use anyhow::{Context, Result};
use std::{path::Path, thread};
use testdb::Make;

/// How many share a database that can be shared.
const REPLICAS: usize = 3;

/// The service: its replicas, which all do the same, and their database.
#[derive(Debug)]
pub(super) struct Service {
    // They end before their database does.
    replicas: Vec<Replica>,
    database: Database,
}

impl Service {
    /// One on a new database of this make, of which nothing is started.
    pub(super) fn on(make: Make, below: &Path) -> Result<Self> {
        let database = Database::make(make, below)?;
        let count = match make {
            Make::Sqlite => 1,
            Make::Postgres => REPLICAS,
        };
        let replicas = (0..count).map(|number| Replica::over(database.url(), number, below));
        Ok(Self { replicas: replicas.collect::<Result<_>>()?, database })
    }

    /// Starts all replicas at once, and leads the network to them.
    pub(super) fn start(&mut self, network: &Network) -> Result<()> {
        thread::scope(|scope| {
            let starting: Vec<_> =
                self.replicas.iter_mut().map(|replica| scope.spawn(|| replica.start())).collect();
            starting.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("it panicked"))?)
        })?;
        self.lead(network);
        Ok(())
    }

    /// Ends one by SIGKILL, wherever it is.
    pub(super) fn kill(&mut self, number: usize, network: &Network) -> Result<()> {
        self.replicas[number].kill()?;
        self.lead(network);
        Ok(())
    }

    /// Starts one that was killed.
    pub(super) fn restart(&mut self, number: usize, network: &Network) -> Result<()> {
        self.replicas[number].start()?;
        self.lead(network);
        Ok(())
    }

    /// Ends all.
    pub(super) fn end(&mut self) -> Result<()> {
        self.replicas.iter_mut().try_for_each(Replica::kill)
    }

    /// How many replicas it has.
    pub(super) fn count(&self) -> usize {
        self.replicas.len()
    }

    /// One of them.
    pub(super) fn replica(&mut self, number: usize) -> &mut Replica {
        &mut self.replicas[number]
    }

    /// Its database's server, where it has one.
    pub(super) fn server(&mut self) -> Option<&mut Server> {
        self.database.server()
    }

    /// Fails if what a replica takes for now is not as wrong as it was set.
    pub(super) fn is_as_wrong(&self, network: &Network, setting: &Setting) -> Result<()> {
        for (number, replica) in self.replicas.iter().enumerate() {
            network.leads_to(&[replica.address()]);
            replica.is_as_wrong(setting.service_now()?).with_context(|| format!("replica {number}"))?;
        }
        self.lead(network);
        Ok(())
    }

    /// The last lines of its logs.
    pub(super) fn log(&self) -> String {
        let logs = self.replicas.iter().enumerate();
        logs.map(|(number, replica)| format!("replica {number}:\n{}\n", replica.log())).collect()
    }

    fn lead(&self, network: &Network) {
        let addresses: Vec<_> = self.replicas.iter().map(Replica::address).collect();
        network.leads_to(&addresses);
    }
}
