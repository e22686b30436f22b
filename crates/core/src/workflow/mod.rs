//! Workflow checks: what a user does with the stack, written as requests and expectations.
//!
//! This module owns the YAML format, its loading with precise errors, interpolation, and the
//! judgement of a response. Nothing here sends a request, reads a variable of the process or looks
//! at a clock: the engine passes responses, elapsed time and look-ups in.

mod capture;
mod curl;
mod expect;
mod locate;
mod matcher;
mod model;
mod parse;
mod redact;
mod repeat;
mod request;
mod response;
mod sent;
mod template;
#[cfg(test)]
mod tests;
mod validate;

pub use capture::{Capture, capture};
pub use curl::curl_command;
pub use expect::evaluate;
pub use matcher::{JsonType, Matcher};
pub use model::{
    BodyExpect, Expect, FilePart, McpStep, OnProduction, Part, Request, Retry, SqlStep, StatusMatch, Step,
    StepKind, Workflow,
};
pub use parse::{WorkflowError, file_stem};
pub use redact::{Redactor, is_secret_name};
pub(crate) use request::percent_encode as percent_encoded;
pub use request::{PreparedBody, PreparedPart, PreparedRequest, prepare, prepare_sql};
pub use response::{Response, shorten};
pub use sent::SentStep;
pub use template::{Endpoint, Ref, RenderError, Scope, Template};
pub use validate::{Reference, ReferenceKind};

/// The JSON Schema (draft 2020-12) of a workflow file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Workflow).to_value()
}
