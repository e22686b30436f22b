//! The example service.
