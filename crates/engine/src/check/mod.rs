//! Runs checks.
