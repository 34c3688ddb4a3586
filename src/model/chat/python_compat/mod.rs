//! Python semantics for chat templates: string and list methods, `json.dumps`, `repr` of floats.
//!
//! Only what minijinja and its `pycompat` lack, or do differently from Python 3 and Jinja.

mod filters;
mod json;
mod methods;
mod values;

pub(crate) use filters::{default, int, is_iterable, is_sequence, trim};
pub(crate) use json::tojson;
pub(crate) use methods::method;
pub(crate) use values::{float, from_json, materialize};
