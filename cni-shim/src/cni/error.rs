use super::SpecVersion;
use serde_json::{Value, json};
use std::fmt;

/// Codes of error objects: the specification's (1 to 99) and our own (100 and up).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// 1: a `cniVersion`, or a verb of one, that this plugin does not speak.
    IncompatibleVersion,
    /// 2: a field with a value that is not supported; the message names both.
    UnsupportedField,
    /// 4: the environment variables are missing or invalid.
    Environment,
    /// 5: reading or writing failed.
    Io,
    /// 6: standard input is not JSON.
    Decode,
    /// 7: the configuration is invalid.
    InvalidConfig,
    /// 8: the network namespace is the host's own.
    InvalidNetns,
    /// 11: trying again later helps.
    TryAgain,
    /// 50: ADD cannot work.
    NotReady,
    /// 51: ADD cannot work, and pods that run may be limited.
    Limited,
    /// 100: the service refused.
    Refused,
    /// 101: the service no longer knows this node's claim, or ends it.
    StaleClaim,
    /// 102: no address of the block is free.
    Exhausted,
    /// 103: the journal cannot be used.
    Journal,
    /// 104: the kernel refused part of the wiring, or it is not as it should be.
    Datapath,
    /// 999: a defect of this plugin.
    Internal,
}

impl Code {
    /// The number that goes into the error object.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfig => 7,
            Self::InvalidNetns => 8,
            Self::TryAgain => 11,
            Self::NotReady => 50,
            Self::Limited => 51,
            Self::Refused => 100,
            Self::StaleClaim => 101,
            Self::Exhausted => 102,
            Self::Journal => 103,
            Self::Datapath => 104,
            Self::Internal => 999,
        }
    }
}

/// What a failed verb prints on standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// What kind.
    pub code: Code,
    /// What failed, in one sentence.
    pub msg: String,
    /// Why, and what to do about it; may be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    #[must_use]
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same error with details.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The error object, in the version the runtime asked for where that is known.
    #[must_use]
    pub fn to_json(&self, version: Option<SpecVersion>) -> Value {
        let version = version.unwrap_or(SpecVersion::NEWEST);
        let mut object = json!({
            "cniVersion": version.as_str(),
            "code": self.code.number(),
            "msg": self.msg,
        });
        if !self.details.is_empty() {
            object["details"] = Value::from(self.details.clone());
        }
        object
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for CniError {}
