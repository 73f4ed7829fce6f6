//! Bearer tokens: how they look, what they are called, and what of them is kept.
//!
//! A token is `ipam_<role>_` and 43 characters of base64url: 256 random bits. The
//! prefix lets secret scanners and people see what it is; only its SHA-256 is
//! kept, which needs no salt because nobody guesses 256 bits. Randomness is
//! passed in.

use crate::{names::TokenId, wire::Role};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

/// A token as its owner has it. Its debug form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    role: Role,
    text: String,
}

/// Why a text is no token; never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no token of this service: one begins with ipam_, a role and _, and has 43 more characters")]
pub struct InvalidSecret;

/// What is kept of a token: its SHA-256 in hex.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash(String);

/// Characters of 32 bytes in base64url without padding.
const LENGTH: usize = 43;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Secret {
    /// The token of these random bytes.
    #[must_use]
    pub fn new(role: Role, random: [u8; 32]) -> Self {
        let mut text = format!("{}{}_", Self::PREFIX, role.word());
        // Six bits a character, the last one padded with zeros (RFC 4648, section 5).
        for at in 0..LENGTH {
            let (byte, shift) = (at * 6 / 8, at * 6 % 8);
            let pair = u16::from(random[byte]) << 8 | u16::from(random.get(byte + 1).copied().unwrap_or(0));
            text.push(char::from(ALPHABET[usize::from(pair >> (10 - shift)) & 63]));
        }
        Self { role, text }
    }

    /// How every token begins.
    pub const PREFIX: &'static str = "ipam_";

    /// What it is for, by its own word; what it may do is what was kept with its hash.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The token itself, for the header or file that it belongs into.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(&self.text).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let rest = text.strip_prefix(Self::PREFIX).ok_or(InvalidSecret)?;
        let (role, random) = rest.split_once('_').ok_or(InvalidSecret)?;
        let role = Role::ALL.into_iter().find(|known| known.word() == role).ok_or(InvalidSecret)?;
        if random.len() == LENGTH && random.bytes().all(|byte| ALPHABET.contains(&byte)) {
            Ok(Self { role, text: text.to_owned() })
        } else {
            Err(InvalidSecret)
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}…)", self.role.word())
    }
}

impl SecretHash {
    /// A hash as it was kept.
    #[must_use]
    pub fn kept(text: String) -> Self {
        Self(text)
    }

    /// As it is kept.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the token is called where it must not be shown; `None` for what is no hash.
    #[must_use]
    pub fn id(&self) -> Option<TokenId> {
        self.0.get(..16)?.parse().ok()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_says_its_role_and_nothing_shows_it() {
        let secret = Secret::new(Role::Node, [0xff; 32]);
        assert_eq!(secret.expose(), format!("ipam_node_{}8", "_".repeat(42)));
        assert_eq!(secret.expose().parse(), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "Secret(node…)");
        assert_eq!(secret.hash().as_str().len(), 64);
        assert_eq!(secret.hash().id().unwrap().as_str(), &secret.hash().as_str()[..16]);
        assert!(!format!("{:?}", secret.hash()).contains(&secret.hash().as_str()[..4]));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let good = Secret::new(Role::Admin, [7; 32]).expose().to_owned();
        for bad in [
            "",
            "ipam_",
            "ipam_admin_",
            "ipam_root_AAAA",
            &good[1..],
            &good[..good.len() - 1],
            &format!("{good}A"),
        ] {
            assert!(bad.parse::<Secret>().is_err(), "{bad}");
        }
        assert!(good.replace("admin_", "admin_=").parse::<Secret>().is_err());
    }

    proptest! {
        #[test]
        fn every_bit_counts(random in any::<[u8; 32]>(), bit in 0usize..256) {
            let mut other = random;
            other[bit / 8] ^= 1 << (bit % 8);
            let (one, two) = (Secret::new(Role::Join, random), Secret::new(Role::Join, other));
            prop_assert_ne!(one.expose(), two.expose());
            prop_assert_eq!(one.expose().parse(), Ok(one.clone()));
        }
    }
}
