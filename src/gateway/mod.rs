//! The process: event loop, control thread, kernel set-up.
//!
//! [`run`] checks first, then creates, and undoes everything when a step fails. Two threads: the
//! event loop owns the node and all packets; the control thread answers operators and follows the
//! host's changes. `kernel` is what we ask of the kernel.

mod answers;
mod ask;
mod connection;
mod control;
pub mod doctor;
mod event_loop;
mod http;
mod keeper;
mod kernel;
mod logging;
mod nat_log;
mod node_config;
pub mod status;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use ipnet::IpNet;
use mio::unix::SourceFd;
use mio::{Interest, Poll};

use crate::config::{Config, OnFailure, UdpGso};
use crate::io::clock::Clock;
use crate::io::files::StateDir;
use crate::io::lan_server::LanServer;
use crate::io::netlink::{Monitor, Netlink};
use crate::io::signals::Signals;
use crate::io::sysctl;
use crate::io::tun::Tun;
use crate::io::underlay::UnderlaySocket;
use crate::node::Node;
use ask::{Line, ToControl, ToLoop};
pub use control::answer_in_vain;
use control::{Listeners, Server};
use event_loop::{EventLoop, Parts, poll_with_waker};
use keeper::{Binding, Keeper, binding, lan_networks};
use kernel::{HostFacts, KernelPlan, KernelSetup, OutsidePair};
use nat_log::NatLog;
use node_config::Incarnation;

use std::os::fd::AsRawFd as _;

/// Runs a gateway until it is told to stop.
pub fn run(config: Config, config_path: &Path) -> anyhow::Result<()> {
    logging::set_filter(&config.log);
    // Before the first thread: the mask is inherited.
    let signals = Signals::block().context("cannot block signals")?;
    let state = StateDir::open(&config.node.state_dir, &config.node.name)?;
    let timestamp_floor = state.wall_floor()?;
    let clock = Clock::new(timestamp_floor);
    let config = Arc::new(config);

    let mut netlink = Netlink::open()?;
    let facts = HostFacts::gather(&mut netlink).context("cannot look at the host's network")?;
    let plan = check(&config, &facts)?;
    let listeners =
        Listeners::bind(&config.control.socket, config.http.as_ref().map(|http| http.listen))?;
    let mtu = kernel::tun_mtu(&config, &facts);
    let tun = create_tun(&config, &mut netlink, mtu)?;
    let (sockets, bindings) = open_sockets(&config, &facts)?;

    let mut timestamps = state.timestamp_keeper();
    timestamps.reserve(clock.wall(clock.now())).context("cannot write to node.state_dir")?;
    let now = clock.now();
    let wall = clock.wall(now);
    let incarnation = Incarnation { mtu, timestamp_floor, wall };
    let node_config = node_config::convert(&config, &facts, &incarnation)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow!("no randomness from the host: {error}"))?;
    let mut node = Node::new(node_config, seed, now, wall);
    let outside = kernel::outside_pairs(&config, &facts);
    for pair in &outside {
        node.set_outside(pair.internal, pair.outside);
    }

    let kernel = KernelSetup::adopt(netlink, state.kernel_record())?;
    let lan_servers = open_lan_servers(&config)?;
    let nat_log = NatLog::start(&config)?;
    let outside = Outside {
        lan_networks: lan_networks(&config, &facts),
        config,
        config_path,
        clock,
        timestamps,
        bindings,
        outside,
        listeners,
    };
    let inside = Inside { signals, tun, sockets, node, nat_log, lan_servers };
    serve(outside, inside, kernel, &plan)
}

/// What the control thread gets.
struct Outside<'a> {
    config: Arc<Config>,
    config_path: &'a Path,
    clock: Clock,
    timestamps: crate::io::files::TimestampKeeper,
    bindings: Vec<Binding>,
    outside: Vec<OutsidePair>,
    lan_networks: Vec<(String, IpNet)>,
    listeners: Listeners,
}

/// What the event loop gets.
struct Inside {
    signals: Signals,
    tun: Tun,
    sockets: Vec<Option<UnderlaySocket>>,
    node: Node,
    nat_log: Option<NatLog>,
    lan_servers: Vec<LanServer>,
}

/// Sets the kernel up and runs both threads; afterwards the kernel is as it was.
fn serve(
    outside: Outside<'_>,
    inside: Inside,
    mut kernel: KernelSetup,
    plan: &KernelPlan,
) -> anyhow::Result<()> {
    let (loop_poll, loop_waker) = poll_with_waker(event_loop::WAKER)?;
    let (control_poll, control_waker) = poll_with_waker(control::WAKER)?;
    let (to_loop, messages) = Line::<ToLoop>::new(loop_waker);
    let (to_control, from_loop) = Line::<ToControl>::new(control_waker);
    let monitors = watch_host(&control_poll)?;
    let Outside {
        config,
        config_path,
        clock,
        timestamps,
        bindings,
        outside,
        lan_networks,
        mut listeners,
    } = outside;
    listeners.watch(&control_poll)?;
    let name = config.node.name.clone();
    let blocks = config.lan.on_failure == OnFailure::Block;
    let Inside { signals, tun, sockets, node, nat_log, lan_servers } = inside;
    let mut event_loop = EventLoop::new(Parts {
        poll: loop_poll,
        clock,
        signals,
        tun,
        sockets,
        node,
        config: Arc::clone(&config),
        nat_log,
        lan_servers,
        messages,
        control: to_control.clone(),
    })?;

    set_up(&mut kernel, plan)?;
    let keeper = Keeper {
        line: to_loop,
        config,
        config_path: config_path.to_owned(),
        kernel,
        monitors,
        timestamps,
        clock,
        bindings,
        outside,
        // What the node was made with is told once more: that does no harm.
        closed: Vec::new(),
        lan_networks,
        complaint: String::new(),
        // Something may have changed since the first look.
        stale: true,
    };
    let server = Server::new(control_poll, listeners, from_loop, clock, keeper);
    let thread = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || server.run())
        .context("cannot start the control thread")?;
    log::info!("{name} is running");
    let result = event_loop.run();
    log::info!("{name} ends");
    drop(event_loop);
    // A full queue is read soon.
    while !thread.is_finished() && !to_control.send(ToControl::Stop) {
        std::thread::sleep(Duration::from_millis(1));
    }
    match thread.join() {
        // A fault is a failure like being killed: nothing may leave in plaintext after it.
        Ok(_) if result.is_err() && blocks => {
            log::warn!("routes and rules stay in place (lan.on_failure: block)");
        }
        Ok(mut keeper) => undo(&mut keeper.kernel),
        Err(_) => log::error!("the control thread panicked: routes and rules stay in place"),
    }
    result
}

/// The host's notifications, in the control thread's poll.
fn watch_host(poll: &Poll) -> anyhow::Result<Vec<Monitor>> {
    let mut monitors = vec![Monitor::open()?];
    match Monitor::open_nftables() {
        Ok(monitor) => monitors.push(monitor),
        Err(error) => log::debug!("changes of nftables stay unnoticed: {error:#}"),
    }
    for monitor in &monitors {
        let fd = monitor.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), control::MONITOR, Interest::READABLE)?;
    }
    Ok(monitors)
}

/// Makes the kernel match the plan, or undoes what was done of it.
fn set_up(kernel: &mut KernelSetup, plan: &KernelPlan) -> anyhow::Result<()> {
    let leftovers = kernel.has_leftovers();
    kernel.apply(plan).inspect_err(|_| {
        // What a predecessor left still protects its hosts.
        if !leftovers {
            undo(kernel);
        }
    })
}

fn undo(kernel: &mut KernelSetup) {
    // Each fault is in the log already; there is nothing else to be done about it.
    let _ = kernel.undo();
}

/// Everything that can be found wrong before anything is changed, each in one sentence.
fn check(config: &Config, facts: &HostFacts) -> anyhow::Result<KernelPlan> {
    if let Some(why) = kernel::missing_interface(config, facts) {
        bail!(why);
    }
    for (index, uplink) in config.uplinks() {
        if let Some(address) = uplink.listen.address()
            && binding(config, index, facts).is_none()
        {
            bail!(
                "the address {} of uplink `{}` is not on the interface `{}`",
                address.ip(),
                uplink.name,
                uplink.interface
            );
        }
    }
    if let Some(why) = kernel::conflict(config, facts) {
        bail!(why);
    }
    let plan = kernel::plan(config, facts);
    if let Some(why) = kernel::missing_command(&plan) {
        bail!(why);
    }
    log::debug!("plan for the kernel:\n{plan}");
    Ok(plan)
}

fn create_tun(config: &Config, netlink: &mut Netlink, mtu: u32) -> anyhow::Result<Tun> {
    let name = &config.tun.name;
    let tun = Tun::create(name)?;
    let interface =
        netlink.interface(name)?.with_context(|| format!("the TUN device `{name}` vanished"))?;
    // Nobody else is on the link: no address of its own making, no search for routers.
    for (parameter, value) in [("addr_gen_mode", "1"), ("accept_ra", "0")] {
        // Fails without IPv6, where it is not needed.
        let _ = sysctl::write(&format!("net/ipv6/conf/{name}/{parameter}"), value);
    }
    netlink
        .bring_up(interface.index, mtu)
        .with_context(|| format!("cannot bring up `{name}` with an MTU of {mtu}"))?;
    for &address in &config.tun.address {
        netlink
            .add_address(interface.index, address)
            .with_context(|| format!("cannot give `{name}` the address {address}"))?;
    }
    Ok(tun)
}

/// Where hosts of our LAN ask our exit for mappings.
fn open_lan_servers(config: &Config) -> anyhow::Result<Vec<LanServer>> {
    if config.egress.is_none() || !config.nat.pcp {
        return Ok(Vec::new());
    }
    let interfaces = config.lan.interfaces.iter().take(event_loop::LAN_SERVERS_MAX);
    interfaces.map(|name| LanServer::open(name, crate::nat::pcp::PORT)).collect()
}

/// A socket for each uplink whose interface has its address.
fn open_sockets(
    config: &Config,
    facts: &HostFacts,
) -> anyhow::Result<(Vec<Option<UnderlaySocket>>, Vec<Binding>)> {
    let mut sockets = Vec::new();
    let mut bindings = Vec::new();
    for (index, uplink) in config.uplinks() {
        let bound = binding(config, index, facts);
        sockets.push(match bound {
            Some((address, _)) => Some(
                UnderlaySocket::open(&uplink.interface, address, uplink.gso == UdpGso::Auto)
                    .with_context(|| format!("uplink `{}`", uplink.name))?,
            ),
            None => {
                log::warn!("uplink {}: waiting for an address", uplink.name);
                None
            }
        });
        bindings.push(bound);
    }
    Ok((sockets, bindings))
}
