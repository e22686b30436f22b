//! The pure part of Switchback.
//!
//! Everything here is a value or a function of values: configuration, plans, events, the fold that
//! turns events into state, verdicts, reports, criteria. It must never touch the file system, the
//! network, processes, the clock or randomness; `switchback-engine` passes those results in.

pub mod analytics;
pub mod anonymise;
pub mod api;
pub mod backup;
pub mod carry;
pub mod check;
pub mod compat;
pub mod compose;
pub mod config;
pub mod criteria;
pub mod csv;
pub mod data;
pub mod duration;
pub mod egress;
pub mod environment;
pub mod ids;
pub mod journal;
pub mod journey;
pub mod lint;
pub mod look;
pub mod next;
pub mod notify;
pub mod performance;
pub mod plan;
pub mod prove;
pub mod queries;
pub mod record;
pub mod release;
pub mod report;
pub mod scaling;
pub mod settings;
pub mod stacks;
pub mod stops;
pub mod tags;
pub mod times;
pub mod trace;
pub mod trigger;
pub mod wal;
pub mod workflow;
