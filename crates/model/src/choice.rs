//! Settings that are one of a few values: the one table of their words and numbers. Flags, views, errors, files, the API and the
//! disk all take them from here.

use std::fmt;

use crate::join_token::JoinAs;
use crate::listener::OnSilence;
use crate::pool::{Algorithm, AllDown, InitialState, OnDown, OnPrimaryUp, SendProxy};
use crate::role::Role;
use crate::transport::TransportSecurity;
use crate::vip::OnQuorumLoss;

/// A value of such a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen<T> {
    /// The value.
    pub value: T,
    /// Its number in messages, which never changes.
    pub number: i32,
    /// Its word.
    pub word: &'static str,
    /// What it does, as help tells it.
    pub help: &'static str,
}

/// A setting that is one of a few values.
pub trait Choice: Copy + PartialEq + Default + fmt::Debug + 'static {
    /// Every value. Number 0 stands for the default.
    const TABLE: &'static [Chosen<Self>];

    /// The value's number in messages.
    fn number(self) -> i32 {
        Self::TABLE.iter().find(|chosen| chosen.value == self).map_or(0, |chosen| chosen.number)
    }

    /// The value's word.
    fn word(self) -> &'static str {
        Self::TABLE.iter().find(|chosen| chosen.value == self).map_or("", |chosen| chosen.word)
    }

    /// The value of a number; 0 is the default, `None` is for numbers that this version does not know.
    fn of_number(number: i32) -> Option<Self> {
        if number == 0 {
            return Some(Self::default());
        }
        Self::TABLE.iter().find(|chosen| chosen.number == number).map(|chosen| chosen.value)
    }

    /// Parses a word; the error is the broken rule.
    ///
    /// # Errors
    /// When no value has it.
    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::TABLE.iter().find(|chosen| chosen.word == text).map(|chosen| chosen.value);
        found.ok_or_else(|| {
            let words: Vec<&str> = Self::TABLE.iter().map(|chosen| chosen.word).collect();
            format!("must be one of {}", words.join(", "))
        })
    }
}

macro_rules! choices {
    ($($type:ident { $($variant:ident = $number:literal $word:literal $help:literal),+ $(,)? })+) => {$(
        impl Choice for $type {
            const TABLE: &'static [Chosen<Self>] =
                &[$(Chosen { value: Self::$variant, number: $number, word: $word, help: $help }),+];
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::parse(text)
            }
        }
    )+};
}

choices! {
    Algorithm {
        RoundRobin = 1 "round-robin" "Each backend in turn, in proportion to its weight",
        LeastConnections = 2 "least-connections" "The backend with the fewest connections for its weight",
        RandomTwo = 3 "random-two" "Of two backends drawn at random, the one with fewer connections for its weight",
        SourceHash = 4 "source-hash" "The same backend for the same client address, on every member",
        SourcePortHash = 6 "source-port-hash" "As source-hash, by the client's address and port",
        First = 5 "first" "The first usable backend in the order of names",
    }
    OnDown {
        Close = 1 "close" "Reset both legs, so that clients connect again, to another backend",
        Keep = 2 "keep" "Leave them alone",
    }
    OnPrimaryUp {
        Keep = 1 "keep" "Leave them alone",
        Close = 2 "close" "Reset both legs, and lead nobody to a backup while such a backend is usable",
    }
    AllDown {
        Refuse = 1 "refuse" "Reset them at once",
        FailOpen = 2 "fail-open" "Try the backends all the same",
    }
    SendProxy {
        Off = 1 "off" "None",
        V1 = 2 "v1" "Version 1, in words",
        V2 = 3 "v2" "Version 2, in bytes, with what the client's own header had besides addresses",
    }
    InitialState {
        Unknown = 1 "unknown" "Used while no healthy backend is there; the first result decides",
        Healthy = 2 "healthy" "Healthy until checks fail",
        Unhealthy = 3 "unhealthy" "Unhealthy until checks succeed",
    }
    OnSilence {
        Reset = 1 "reset" "It is reset",
        Pool = 2 "pool" "It goes to --pool, for protocols whose server speaks first",
    }
    TransportSecurity {
        Off = 1 "off" "Plain connections, from whoever reaches a port",
        Accept = 2 "accept" "Plain connections and TLS",
        Require = 3 "require" "TLS only",
    }
    Role {
        Viewer = 1 "viewer" "Looks, waits and watches, and changes nothing",
        Operator = 2 "operator" "Also manages pools, backends and listeners, drains, moves virtual IPs and closes connections",
        Admin = 3 "admin" "Everything, members and users included",
    }
    JoinAs {
        Learner = 1 "learner" "Gets the log, and does not vote until it is promoted",
        Voter = 2 "voter" "Votes, once it has caught up",
    }
    OnQuorumLoss {
        Release = 1 "release" "It is let go when the lease ends, so that never two members serve it",
        Hold = 2 "hold" "The holder goes on; the other side of a split may elect a leader that serves it too",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete<T: Choice + fmt::Display>() {
        for Chosen { value, number, word, help } in T::TABLE {
            assert_eq!((value.number(), value.word(), value.to_string().as_str()), (*number, *word, *word));
            assert_eq!((T::of_number(*number), T::parse(word)), (Some(*value), Ok(*value)));
            let is_it = |c: &&Chosen<T>| c.value == *value || c.number == *number || c.word == *word;
            assert!(*number > 0 && !help.is_empty() && T::TABLE.iter().filter(is_it).count() == 1);
        }
        assert_eq!((T::of_number(0), T::of_number(99)), (Some(T::default()), None));
        assert!(T::parse("nonsense").is_err_and(|rule| rule.starts_with("must be one of ")));
    }

    #[test]
    fn every_value_has_one_number_and_one_word() {
        complete::<Algorithm>();
        complete::<OnDown>();
        complete::<OnPrimaryUp>();
        complete::<AllDown>();
        complete::<SendProxy>();
        complete::<InitialState>();
        complete::<OnSilence>();
        complete::<OnQuorumLoss>();
        complete::<Role>();
        complete::<JoinAs>();
    }
}
