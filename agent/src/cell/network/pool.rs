//! The thread that prepares namespaces, and the network as the rest of the agent sees it.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

use super::address::Addresses;
use super::error::{NetworkError, Result};
use super::message::Requests;
use super::nftables::{self, Protocol, Published};
use super::socket::{Socket, index_of};
use super::{Attachment, INTERFACE, NetworkOptions, READY_COUNT_MAX, setup};
use crate::sys;

/// Addresses that are tried while the kernel still has veths of former owners.
const ADDRESSES_TRIED_MAX: u32 = 1024;
/// How often, and for how long each time, the kernel is waited for where all addresses but those are taken.
const WAITS_COUNT_MAX: u32 = 500;
const RESTING_WAIT: Duration = Duration::from_millis(4);

/// A cell's network. Dropped, it leaves the bridge, the table and the namespaces in use as they are.
#[derive(Debug)]
pub struct Network {
    options: NetworkOptions,
    shared: Arc<Shared>,
    published: Mutex<HashMap<(Protocol, u16), Published>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something is wanted from the thread.
    wanted: Condvar,
    /// Something is ready, or failed.
    ready: Condvar,
}

#[derive(Debug)]
struct State {
    ready: VecDeque<Attachment>,
    addresses: Addresses,
    /// How many wait for one right now.
    waiting_count: usize,
    failed: Option<NetworkError>,
    has_ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network {
    /// Sets the network up in the calling thread's namespace and begins to prepare namespaces. `in_use` are the
    /// addresses of instances that run already, and `published` their ports; other published ports are forgotten.
    ///
    /// # Errors
    /// [`NetworkError::Invalid`], [`NetworkError::Kernel`] (`EPERM` without privilege), [`NetworkError::NoNftables`],
    /// [`NetworkError::Nftables`], [`NetworkError::Published`].
    pub fn start(options: NetworkOptions, in_use: &[Ipv4Addr], published: &[Published]) -> Result<Self> {
        if options.ready_count > READY_COUNT_MAX {
            return Err(NetworkError::invalid("ready_count", format!("more than {READY_COUNT_MAX}")));
        }
        let mut addresses = Addresses::new(options.network, options.prefix_bits)?;
        for address in in_use {
            if !addresses.claim(*address) {
                let why = format!("{address} is in use, and no free address of the network");
                return Err(NetworkError::invalid("in_use", why));
            }
        }
        let socket = Socket::new()?;
        let gateway = addresses.gateway();
        let bridge = setup::bridge(&socket, &options.bridge, gateway, options.prefix_bits)?;
        let table = nftables::whole(&options.bridge, options.network, options.prefix_bits);
        nftables::run("set the network's table up", &table)?;
        let has_ipv6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
        let prefix_bits = options.prefix_bits;
        let maker = Maker { home: own_namespace()?, socket, bridge, gateway, prefix_bits, has_ipv6 };
        let state =
            State { ready: VecDeque::new(), addresses, waiting_count: 0, failed: None, has_ended: false };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), wanted: Condvar::new(), ready: Condvar::new() });
        let (of_thread, ready_count) = (Arc::clone(&shared), options.ready_count);
        let thread = std::thread::Builder::new()
            .name("celda-network".to_owned())
            .spawn(move || maker.run(&of_thread, ready_count))
            .map_err(NetworkError::kernel("start a thread for network namespaces"))?;
        let network = Self { options, shared, published: Mutex::default(), thread: Some(thread) };
        network.publish(published)?;
        Ok(network)
    }

    /// What it was started with.
    pub fn options(&self) -> &NetworkOptions {
        &self.options
    }

    /// Namespaces that are ready now.
    pub fn ready_count(&self) -> usize {
        self.shared.state().ready.len()
    }

    /// A namespace on the network; one that is ready, or the next.
    ///
    /// # Errors
    /// [`NetworkError::Full`], [`NetworkError::Kernel`], [`NetworkError::Ended`].
    pub fn take(&self) -> Result<Attachment> {
        let mut state = self.shared.state();
        if state.ready.is_empty() {
            state.failed = None; // of a former try
        }
        state.waiting_count += 1;
        self.shared.wanted.notify_one();
        let outcome = loop {
            if let Some(ready) = state.ready.pop_front() {
                break Ok(ready);
            }
            if let Some(error) = state.failed.take() {
                break Err(error);
            }
            if state.has_ended || self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                break Err(NetworkError::Ended("it is not running".to_owned()));
            }
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.waiting_count -= 1;
        drop(state);
        self.shared.wanted.notify_one();
        outcome
    }

    /// Gives an address back, whose namespace nobody uses any more. Its published ports are to be taken back before.
    pub fn release(&self, address: Ipv4Addr) {
        let mut state = self.shared.state();
        state.addresses.give_back(address);
        state.failed = None; // there is an address now
        drop(state);
        self.shared.wanted.notify_one();
    }

    /// Leads ports of the host to instances, all of them or none; from the calling thread's namespace.
    ///
    /// # Errors
    /// [`NetworkError::Published`], [`NetworkError::NoNftables`], [`NetworkError::Nftables`].
    pub fn publish(&self, all: &[Published]) -> Result<()> {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = HashMap::new();
        for one in all {
            let key = (one.protocol, one.host_port);
            if let Some(other) = published.get(&key).copied().or_else(|| wanted.insert(key, *one)) {
                return Err(NetworkError::Published { port: one.host_port, address: other.address });
            }
        }
        if !all.is_empty() {
            nftables::run("publish ports", &nftables::add(&self.options.bridge, all))?;
        }
        published.extend(wanted);
        Ok(())
    }

    /// Takes ports back; those that are not published are no error.
    ///
    /// # Errors
    /// [`NetworkError::NoNftables`], [`NetworkError::Nftables`].
    pub fn unpublish(&self, all: &[Published]) -> Result<()> {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let mut there: Vec<Published> = Vec::new();
        for one in all {
            let is_known = published.get(&(one.protocol, one.host_port)) == Some(one);
            if is_known && !there.contains(one) {
                there.push(*one);
            }
        }
        if !there.is_empty() {
            nftables::run("take published ports back", &nftables::delete(&self.options.bridge, &there))?;
        }
        for one in there {
            published.remove(&(one.protocol, one.host_port));
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.state().has_ended = true;
        self.shared.wanted.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there was printed there
        }
    }
}

fn own_namespace() -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())
        .map_err(NetworkError::kernel("open the network namespace"))
}

/// What the thread has.
struct Maker {
    /// The host's namespace, and a socket of it.
    home: OwnedFd,
    socket: Socket,
    bridge: u32,
    gateway: Ipv4Addr,
    prefix_bits: u8,
    /// The kernel has IPv6.
    has_ipv6: bool,
}

impl Maker {
    fn run(&self, shared: &Shared, ready_count: usize) {
        let mut state = shared.state();
        loop {
            let is_wanted = |state: &State| {
                // One that failed is told before another is tried.
                state.ready.len() < ready_count.max(state.waiting_count) && state.failed.is_none()
            };
            while !state.has_ended && !is_wanted(&state) {
                state = shared.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.has_ended {
                return;
            }
            drop(state);
            let made = self.make(shared);
            state = shared.state();
            match made {
                Ok(attachment) => state.ready.push_back(attachment),
                Err(error) => state.failed = Some(error),
            }
            shared.ready.notify_all();
        }
    }

    fn make(&self, shared: &Shared) -> Result<Attachment> {
        let made = self.prepare(shared);
        // Or this thread would keep the namespace from its end.
        rustix::thread::move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(NetworkError::kernel("come back to the host's network namespace"))?;
        made
    }

    fn prepare(&self, shared: &Shared) -> Result<Attachment> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetworkError::kernel("make a network namespace")(std::io::Error::from(errno)))?;
        sys::loopback_up().map_err(NetworkError::kernel("bring lo up in a new network namespace"))?;
        for which in ["all", "default"].into_iter().filter(|_| self.has_ipv6) {
            setup::switch(&format!("ipv6/conf/{which}/accept_dad"), "0")?;
        }
        let namespace = own_namespace()?;
        let address = self.veth(shared, &namespace)?;
        let configured = index_of(INTERFACE).and_then(|index| {
            let mut requests = Requests::default();
            requests.address(index, address, self.prefix_bits);
            requests.up(index);
            requests.default_route(index, self.gateway);
            Socket::new()?.request(format!("set {INTERFACE} up as {address}"), &requests)
        });
        configured.inspect_err(|_| shared.state().addresses.give_back(address))?;
        Ok(Attachment { namespace, address })
    }

    /// A veth between bridge and namespace, named by the address that goes with it.
    fn veth(&self, shared: &Shared, namespace: &OwnedFd) -> Result<Ipv4Addr> {
        let (mut resting, mut waits_count) = (Vec::new(), 0);
        let give_back = |resting: &mut Vec<Ipv4Addr>| {
            let mut state = shared.state();
            resting.drain(..).for_each(|address| state.addresses.give_back(address));
        };
        let outcome = loop {
            let taken = shared.state().addresses.take();
            let address = match taken {
                Ok(address) => address,
                // Those that are free are on their way out of the kernel.
                Err(_) if !resting.is_empty() && waits_count < WAITS_COUNT_MAX => {
                    waits_count += 1;
                    give_back(&mut resting);
                    std::thread::sleep(RESTING_WAIT);
                    continue;
                }
                Err(error) => break Err(error),
            };
            let name = format!("cv{:08x}", u32::from(address));
            let mut requests = Requests::default();
            requests.veth(&name, self.bridge, (INTERFACE, namespace.as_raw_fd()), self.has_ipv6);
            match self.socket.ask(&requests) {
                Ok(()) => break Ok(address),
                // The kernel has not yet removed the one of the address's former owner.
                Err(Errno::EXIST) if resting.len() < ADDRESSES_TRIED_MAX as usize => resting.push(address),
                Err(errno) => {
                    resting.push(address);
                    break Err(NetworkError::kernel(format!("make the veth {name}"))(errno));
                }
            }
        };
        give_back(&mut resting);
        outcome
    }
}
