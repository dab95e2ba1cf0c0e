//! The host's side: a bridge with the gateway's address, and the switches that routing needs.

use std::net::Ipv4Addr;

use rustix::io::Errno;

use super::error::{NetworkError, Result};
use super::message::Requests;
use super::socket::{Socket, index_of};

/// Makes the bridge if it is not there; answers its number.
pub(super) fn bridge(socket: &Socket, name: &str, gateway: Ipv4Addr, prefix_bits: u8) -> Result<u32> {
    let is_name = (1..=15).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_name {
        return Err(NetworkError::invalid("bridge", format!("{name:?} is not 1 to 15 letters and digits")));
    }
    let mut requests = Requests::default();
    requests.bridge(name);
    match socket.ask(&requests) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(NetworkError::kernel(format!("make the bridge {name}"))(errno)),
    }
    let index = index_of(name)?;
    let mut requests = Requests::default();
    requests.address(index, gateway, prefix_bits);
    requests.up(index);
    match socket.ask(&requests) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(NetworkError::kernel(format!("give {name} the address {gateway}"))(errno)),
    }
    switch("ipv4/ip_forward", "1")?;
    // A published port is reached from the host's loopback as well.
    switch(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
    Ok(index)
}

/// Writes a switch below `/proc/sys/net`, of the calling thread's namespace.
pub(super) fn switch(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    std::fs::write(&path, value).map_err(NetworkError::kernel(format!("write {value} to {path}")))
}
