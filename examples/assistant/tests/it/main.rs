//! Runs the real program: what each release does, and what goes wrong in the faulty ones.

mod faults;
mod service;
mod support;
