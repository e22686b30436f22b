//! The program of a cell: it closes itself off, is the gateway there, and waits for services to come in.
//!
//! One process, two network namespaces. What it opened before it closed itself off stays where it was: the ports by which
//! checks reach the services are listeners of the host, and the way out is a process outside.

use super::outlet::Outlet;
use super::{Cell, Orders, VARIABLE, hide, network};
use crate::error::EngineError;
use crate::gateway::{Bound, Direct, Names, Outside, Resolver, from_parts, lead, told_to_end, until};
use crate::home::write_json_volatile;
use crate::runtime::process::table;
use nix::sched::CloneFlags;
use rustix::process::{getegid, geteuid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// How long a gateway that ends may keep its ports.
const LET_GO: Duration = Duration::from_secs(2);

/// Runs the cell until it is told to end. `probe` only finds out whether one could be made.
pub fn run(probe: bool) -> Result<(), EngineError> {
    let broken = |detail: String| EngineError::Internal { detail };
    if probe {
        return Networks::make().map(drop).map_err(broken);
    }
    let orders: Orders = from_parts(VARIABLE)?;
    let mut ways = Vec::new();
    for way in &orders.gateway.ingress {
        let listener = listen(way.listen)
            .map_err(|e| broken(format!("cannot listen on port {} of this host: {e}", way.listen)))?;
        ways.push((listener, way.clone()));
    }
    // Nobody is asked for names here: those of the world lead to the gateway, and services have none.
    let nobody = Resolver::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), Duration::from_millis(1));
    let outside: Box<dyn Outside> = if orders.gateway.rules.allow.is_empty() {
        Box::new(Direct { resolver: nobody, own: Vec::new() })
    } else {
        Box::new(Outlet::start()?)
    };
    let networks = Networks::make().map_err(broken)?;
    cover(&orders).map_err(broken)?;
    let stop = told_to_end();
    networks.go(&networks.outer).map_err(broken)?;
    let bound = Bound::new(&orders.gateway).map_err(broken)?;
    let names = Names::always(&orders.service);
    let (sink, writer) = bound.serve(orders.gateway, io::stdout(), names, outside).map_err(broken)?;
    networks.go(&networks.inner).map_err(broken)?;
    for (listener, way) in ways {
        lead(&sink, listener, way, nobody);
    }
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let started = table::read_one(own).map_or(0, |p| p.started);
    write_json_volatile(&orders.file, &Cell { pid: own, started, digest: orders.digest })?;
    until(&stop);
    writer.finish();
    Ok(())
}

/// Listens on a port of this host. The gateway before it may have ended a moment ago: its threads give up its ports a little later.
fn listen(port: u16) -> io::Result<TcpListener> {
    let began = Instant::now();
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && began.elapsed() < LET_GO => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// An error with what it was in the way of.
fn at<E: Into<io::Error>>(what: &str) -> impl FnOnce(E) -> String + use<E> {
    let what = what.to_owned();
    move |e| format!("{what}: {}", e.into())
}

fn cover(orders: &Orders) -> Result<(), String> {
    fs::write(&orders.names, format!("nameserver {}\n", network::GATEWAY)).map_err(at("resolv.conf"))?;
    fs::write(&orders.empty, "").map_err(at("an empty file"))?;
    hide::hide(&orders.hidden, &orders.spared, &orders.empty).map_err(at("hiding production's data"))?;
    hide::names(&orders.names).map_err(at("the names of staging"))
}

/// The two networks of a cell, connected.
struct Networks {
    outer: File,
    inner: File,
}

impl Networks {
    /// Closes this process off, and makes them. Only while the process has one thread.
    fn make() -> Result<Self, String> {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        if user != 0 {
            // Gives the rights to make the others. Nobody becomes somebody else in it.
            flags |= CloneFlags::CLONE_NEWUSER;
        }
        nix::sched::unshare(flags).map_err(at("namespaces (unshare)"))?;
        if user != 0 {
            fs::write("/proc/self/setgroups", "deny").map_err(at("setgroups"))?;
            fs::write("/proc/self/uid_map", format!("{user} {user} 1")).map_err(at("uid_map"))?;
            fs::write("/proc/self/gid_map", format!("{group} {group} 1")).map_err(at("gid_map"))?;
        }
        hide::private().map_err(at("mounts of its own"))?;
        let here = || File::open("/proc/thread-self/ns/net").map_err(at("the network namespace"));
        let outer = here()?;
        let mut outside = network::Netlink::open().map_err(at("rtnetlink"))?;
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).map_err(at("a second network (unshare)"))?;
        let inner = here()?;
        let mut inside = network::Netlink::open().map_err(at("rtnetlink"))?;
        outside.loopback_up().map_err(at("the gateway's loopback"))?;
        inside.loopback_up().map_err(at("the loopback"))?;
        inside.pair(outer.as_fd()).map_err(at("a pair of virtual Ethernet devices"))?;
        inside.inner_end().map_err(at("the link"))?;
        outside.outer_end().map_err(at("the gateway's link"))?;
        Ok(Self { outer, inner })
    }

    fn go(&self, there: &File) -> Result<(), String> {
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(at("changing the network"))
    }
}
