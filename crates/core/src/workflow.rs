//! Workflow checks.
