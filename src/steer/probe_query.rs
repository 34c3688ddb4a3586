//! Which probability of which probe is read: `FILE`, `FILE:CLASS` or `FILE:CLASS/OTHER`.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The probability of a class under a probe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeQuery {
    /// The probe's file, or the name of a probe in memory (see [`super::Probes`]).
    pub probe: PathBuf,
    /// The class; the last one of a binary probe where none is named.
    pub class: Option<String>,
    /// The one other class that the probability is conditioned on; all classes where none is named.
    pub against: Option<String>,
}

impl ProbeQuery {
    /// The query that a text means. Every text means one: what precedes the last colon is the file.
    pub fn parse(text: &str) -> ProbeQuery {
        let Some((file, class)) = text.rsplit_once(':') else {
            return ProbeQuery { probe: text.into(), class: None, against: None };
        };
        let (class, against) = match class.split_once('/') {
            None => (class, None),
            Some((class, against)) => (class, Some(against.to_string())),
        };
        ProbeQuery { probe: file.into(), class: Some(class.to_string()), against }
    }
}

impl FromStr for ProbeQuery {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<ProbeQuery, Infallible> {
        Ok(ProbeQuery::parse(text))
    }
}

impl fmt::Display for ProbeQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.probe.display())?;
        if let Some(class) = &self.class {
            write!(f, ":{class}")?;
        }
        match &self.against {
            Some(against) => write!(f, "/{against}"),
            None => Ok(()),
        }
    }
}

impl Serialize for ProbeQuery {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProbeQuery {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ProbeQuery, D::Error> {
        Ok(ProbeQuery::parse(&String::deserialize(from)?))
    }
}
