use anyhow::{Context, Result, bail};
use std::{env, path::PathBuf};

/// The programs under test.
const PROGRAMS: [&str; 3] = ["ipam-server", "ipamctl", "cni-shim"];

/// The directory the programs under test lie in.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    /// Where they are: `VNET_BIN_DIR`, else the target directory this executable was built into.
    pub fn find() -> Result<Self> {
        let directory = match env::var_os("VNET_BIN_DIR") {
            Some(given) => PathBuf::from(given),
            None => {
                let own = env::current_exe().context("finding this executable")?;
                let beside = own.parent().context("this executable lies in no directory")?;
                // Tests lie in target/debug/deps, programs in target/debug.
                if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside }.to_owned()
            }
        };
        for program in PROGRAMS {
            if !directory.join(program).is_file() {
                bail!(
                    "{program} is not in {}: run `make build`, or name the directory in VNET_BIN_DIR",
                    directory.display()
                );
            }
        }
        // Every machine has a /run of its own that would hide them.
        if directory.starts_with("/run") {
            bail!("{} cannot be seen from inside the machines: build outside /run", directory.display());
        }
        Ok(Self { directory })
    }

    /// Where one of them is.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn directory(&self) -> &std::path::Path {
        &self.directory
    }
}
