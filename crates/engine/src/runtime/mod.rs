//! Runtimes: what starts, stops and looks at the services of an instance.

pub mod process;
