//! The thread that prepares namespaces, and the network as the rest of the agent sees it.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

use super::address::Addresses;
use super::error::{NetworkError, Result};
use super::message::Requests;
use super::nftables::{self, Published};
use super::publisher::Publisher;
use super::socket::{Names, Socket};
use super::{Attachment, INTERFACE, LINK_PREFIX, NetworkOptions, READY_COUNT_MAX, setup};
use crate::sys;

/// Addresses that are tried while the kernel still has veths of former owners.
const ADDRESSES_TRIED_MAX: u32 = 1024;
/// How often, and for how long each time, the kernel is waited for where all addresses but those are taken.
const WAITS_COUNT_MAX: u32 = 500;
const RESTING_WAIT: Duration = Duration::from_millis(4);

/// A cell's network. Dropped, it leaves the table and the namespaces in use as they are.
#[derive(Debug)]
pub struct Network {
    options: NetworkOptions,
    shared: Arc<Shared>,
    publisher: Publisher,
    /// Until it has been waited for.
    thread: Mutex<Option<JoinHandle<()>>>,
    /// That this network is ours.
    _claim: UnixDatagram,
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
    /// [`NetworkError::Invalid`], [`NetworkError::Held`], [`NetworkError::Kernel`] (`EPERM` without privilege),
    /// [`NetworkError::NoNftables`], [`NetworkError::Nftables`], [`NetworkError::Published`].
    pub fn start(options: NetworkOptions, in_use: &[Ipv4Addr], published: &[Published]) -> Result<Self> {
        if options.ready_count > READY_COUNT_MAX {
            return Err(NetworkError::invalid("ready_count", format!("more than {READY_COUNT_MAX}")));
        }
        let mut addresses = Addresses::new(options.network, options.prefix_bits)?;
        for address in in_use {
            if !addresses.claim(*address) {
                let why = format!(
                    "{address} is an instance's, and no free address of {}/{}: leave network.subnet as it was until \
                     the cell is drained",
                    options.network, options.prefix_bits
                );
                return Err(NetworkError::invalid("subnet", why));
            }
        }
        let claim = setup::claim(&options)?;
        setup::check_routes(&options)?;
        nftables::run("set the network's table up", &nftables::whole(&options))?;
        setup::forward()?;
        let maker = Maker {
            home: own_namespace()?,
            socket: Socket::new()?,
            names: Names::new()?,
            group: options.group(),
            gateway: addresses.gateway(),
            has_ipv6: std::path::Path::new("/proc/sys/net/ipv6").exists(),
        };
        let state =
            State { ready: VecDeque::new(), addresses, waiting_count: 0, failed: None, has_ended: false };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), wanted: Condvar::new(), ready: Condvar::new() });
        let publisher = Publisher::new(nftables::table(&options));
        publisher.publish(published, Duration::ZERO)?;
        let (of_thread, ready_count) = (Arc::clone(&shared), options.ready_count);
        let thread = std::thread::Builder::new()
            .name("celda-network".to_owned())
            .spawn(move || maker.run(&of_thread, ready_count))
            .map_err(NetworkError::kernel("start a thread for network namespaces"))?;
        Ok(Self { options, shared, publisher, thread: Mutex::new(Some(thread)), _claim: claim })
    }

    /// Chains of other tables that drop what instances forward unless somebody lets it through, as `TABLE CHAIN`.
    ///
    /// # Errors
    /// [`NetworkError::NoNftables`], [`NetworkError::Nftables`].
    pub fn strict_chains(&self) -> Result<Vec<String>> {
        nftables::strict_chains(&nftables::table(&self.options))
    }

    /// Addresses that instances have.
    pub fn taken_count(&self) -> usize {
        let state = self.shared.state();
        state.addresses.taken_count().saturating_sub(state.ready.len())
    }

    /// Ends the thread, and takes the table away if no instance needs it.
    ///
    /// # Errors
    /// [`NetworkError::NoNftables`], [`NetworkError::Nftables`].
    pub fn close(&self) -> Result<()> {
        self.end_thread(); // or it would have an address at hand
        let mut state = self.shared.state();
        let ready = std::mem::take(&mut state.ready);
        ready.iter().for_each(|one| state.addresses.give_back(one.address));
        let is_unused = state.addresses.taken_count() == 0;
        drop(state);
        if is_unused {
            nftables::run("take the network's table away", &nftables::none(&self.options))
        } else {
            Ok(())
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_thread(&self) {
        self.shared.state().has_ended = true;
        self.shared.wanted.notify_all();
        let thread = self.thread().take();
        if let Some(thread) = thread {
            let _ = thread.join(); // a panic there was printed there
        }
        self.shared.ready.notify_all(); // nothing will be
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
            if state.has_ended || self.thread().as_ref().is_none_or(JoinHandle::is_finished) {
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

    /// Leads ports of the host to instances, all of them or none; from the calling thread's namespace. A port's former
    /// owner may take `at_most` to be cleared away.
    ///
    /// # Errors
    /// [`NetworkError::Published`], [`NetworkError::NoNftables`], [`NetworkError::Nftables`].
    pub fn publish(&self, all: &[Published], at_most: Duration) -> Result<()> {
        self.publisher.publish(all, at_most)
    }

    /// Takes ports back; those that are not published are no error.
    ///
    /// # Errors
    /// [`NetworkError::NoNftables`], [`NetworkError::Nftables`].
    pub fn unpublish(&self, all: &[Published]) -> Result<()> {
        self.publisher.unpublish(all)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.end_thread();
    }
}

fn own_namespace() -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())
        .map_err(NetworkError::kernel("open the network namespace"))
}

/// What the thread has.
struct Maker {
    /// The host's namespace, and sockets of it.
    home: OwnedFd,
    socket: Socket,
    names: Names,
    group: u32,
    gateway: Ipv4Addr,
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
        // For interfaces to come. The network is IPv4: no address of IPv6, none that a router gives, and where somebody
        // turns it on, none that waits for its twins.
        for (which, value) in [("disable_ipv6", "1"), ("accept_ra", "0"), ("accept_dad", "0")] {
            if self.has_ipv6 {
                setup::switch(&format!("ipv6/conf/default/{which}"), value)?;
            }
        }
        let namespace = own_namespace()?;
        let address = self.veth(shared, &namespace)?;
        let inside = || {
            let index = Names::new()?.index_of(INTERFACE)?;
            let mut requests = Requests::default();
            requests.address(index, address, self.gateway);
            requests.up(index);
            requests.default_route(index, self.gateway);
            Socket::new()?.request(format!("set {INTERFACE} up as {address}"), &requests)
        };
        inside().inspect_err(|_| shared.state().addresses.give_back(address))?;
        Ok(Attachment { namespace, address })
    }

    /// A veth between host and namespace, named by the address that goes with it.
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
            let name = format!("{LINK_PREFIX}{:08x}", u32::from(address));
            let mut requests = Requests::default();
            requests.veth(&name, self.group, (INTERFACE, namespace.as_fd()));
            match self.socket.ask(&requests) {
                Ok(()) => match self.host_end(&name, address) {
                    Ok(()) => break Ok(address),
                    Err(error) => {
                        resting.push(address);
                        break Err(error);
                    }
                },
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

    /// The gateway, for the instance of that address.
    fn host_end(&self, name: &str, address: Ipv4Addr) -> Result<()> {
        let index = self.names.index_of(name)?;
        let mut requests = Requests::default();
        requests.host_end(index, self.has_ipv6);
        requests.up(index);
        requests.address(index, self.gateway, address);
        self.socket.request(format!("set {name} up as the way to {address}"), &requests)
    }
}
