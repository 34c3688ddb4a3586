//! Where an intervention's vector or probe comes from: a file, or an object in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use super::vector::Vector;
use crate::error::Result;
use crate::model::Model;
use crate::probe::Probe;

/// A vector, by its file or as an object.
#[derive(Clone, Debug, PartialEq)]
pub enum VectorSource {
    /// A file that `pearl vector` wrote.
    File(PathBuf),
    /// A vector in memory. A plan that holds one can't be serialised.
    Memory(Arc<Vector>),
}

impl VectorSource {
    /// The vector, to steer `model` with.
    ///
    /// # Errors
    /// A file that can't be read, or that was made from another model's weights.
    pub fn load(&self, model: &Model) -> Result<Arc<Vector>> {
        match self {
            VectorSource::File(path) => Vector::load_for(path, model).map(Arc::new),
            VectorSource::Memory(vector) => Ok(vector.clone()),
        }
    }
}

impl From<Vector> for VectorSource {
    fn from(vector: Vector) -> VectorSource {
        VectorSource::Memory(Arc::new(vector))
    }
}

impl From<&Vector> for VectorSource {
    fn from(vector: &Vector) -> VectorSource {
        vector.clone().into()
    }
}

impl From<&Path> for VectorSource {
    fn from(path: &Path) -> VectorSource {
        VectorSource::File(path.to_owned())
    }
}

impl From<PathBuf> for VectorSource {
    fn from(path: PathBuf) -> VectorSource {
        VectorSource::File(path)
    }
}

impl Serialize for VectorSource {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            VectorSource::File(path) => path.serialize(to),
            VectorSource::Memory(_) => {
                Err(ser::Error::custom("vector: it is in memory; save it, and name the file"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for VectorSource {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<VectorSource, D::Error> {
        PathBuf::deserialize(from).map(VectorSource::File)
    }
}

/// A probe, by its file or as an object.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeSource {
    /// A probe's file.
    File(PathBuf),
    /// A probe in memory. A plan that holds one can't be serialised.
    Memory(Box<Probe>),
}

impl From<Probe> for ProbeSource {
    fn from(probe: Probe) -> ProbeSource {
        ProbeSource::Memory(Box::new(probe))
    }
}

impl From<&Probe> for ProbeSource {
    fn from(probe: &Probe) -> ProbeSource {
        probe.clone().into()
    }
}

impl From<&Path> for ProbeSource {
    fn from(path: &Path) -> ProbeSource {
        ProbeSource::File(path.to_owned())
    }
}

impl From<PathBuf> for ProbeSource {
    fn from(path: PathBuf) -> ProbeSource {
        ProbeSource::File(path)
    }
}
