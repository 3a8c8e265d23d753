//! Where connectors may connect to: decided on the resolved address, at each connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses may be connected to. Those of cloud metadata services, and other link-local ones, never may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Loopback addresses are allowed.
    pub loopback: bool,
    /// Everything else is allowed.
    pub anywhere: bool,
    /// `host`, `host:port` or CIDR.
    pub allowed: Vec<String>,
}

impl Egress {
    /// As for a user's own command line: everywhere but where no query has any business.
    pub fn everywhere() -> Egress {
        Egress { loopback: true, anywhere: true, allowed: vec![] }
    }

    /// Whether a connection to `ip`, which `host` was resolved to, is allowed at this port.
    pub fn allows(&self, host: &str, port: u16, ip: IpAddr) -> bool {
        let ip = plain(ip);
        if is_never_allowed(ip) {
            return false;
        }
        if ip.is_loopback() || ip.is_unspecified() {
            // A name of the list does not open the machine itself: whoever owns the name could point it there.
            return self.loopback || self.allowed.iter().any(|rule| matches_address(rule, port, ip));
        }
        self.anywhere
            || self.allowed.iter().any(|rule| matches_name(rule, host, port) || matches_address(rule, port, ip))
    }
}

/// An IPv4 address that is written as an IPv6 one (mapped, compatible, behind NAT64, or of 6to4) is that address.
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = ip else { return ip };
    let four = |a: u16, b: u16| IpAddr::V4(Ipv4Addr::new((a >> 8) as u8, a as u8, (b >> 8) as u8, b as u8));
    match six.segments() {
        [0, 0, 0, 0, 0, 0xffff, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => four(a, b),
        // As RFC 6052 has it for a prefix of 48 bits: two bytes, a byte of zeros, and the other two.
        [0x64, 0xff9b, 1, a, b, c, ..] => four(a, (b << 8) | (c >> 8)),
        [0x2002, a, b, ..] => four(a, b),
        [0, 0, 0, 0, 0, 0, a, b] if six != Ipv6Addr::LOCALHOST && six != Ipv6Addr::UNSPECIFIED => four(a, b),
        _ => ip,
    }
}

/// Services of a cloud to its machines: metadata of Alibaba and Oracle, and Azure's agent.
const OTHER_METADATA: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];

/// Link-local addresses, among them the metadata services of clouds, and the ones of those that have others.
fn is_never_allowed(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(four) => {
            four.is_link_local() || four.is_broadcast() || four.is_multicast() || OTHER_METADATA.contains(&four)
        }
        IpAddr::V6(six) => {
            six.is_unicast_link_local()
                || six.is_multicast()
                || six == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
                || six == Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

/// `host` or `host:port`; a host in brackets is an IPv6 address. What is no port belongs to the host.
pub(crate) fn split_port(rule: &str) -> (&str, Option<u16>) {
    if let Some((host, rest)) = rule.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match rule.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (rule, None),
        },
        _ => (rule, None),
    }
}

fn matches_name(rule: &str, host: &str, port: u16) -> bool {
    let (name, only) = split_port(rule.trim());
    let bare = |name: &str| name.trim_end_matches('.').to_lowercase();
    only.is_none_or(|only| only == port) && bare(name) == bare(host)
}

fn matches_address(rule: &str, port: u16, ip: IpAddr) -> bool {
    let rule = rule.trim();
    if let Some((network, bits)) = rule.split_once('/') {
        let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
        let same =
            |network: u128, ip: u128, width: u32| bits <= width && (bits == 0 || (network ^ ip) >> (width - bits) == 0);
        return match (network, ip) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => same(network.to_bits().into(), ip.to_bits().into(), 32),
            (IpAddr::V6(network), IpAddr::V6(ip)) => same(network.to_bits(), ip.to_bits(), 128),
            _ => false,
        };
    }
    let (address, only) = split_port(rule);
    only.is_none_or(|only| only == port) && address.parse::<IpAddr>().is_ok_and(|address| plain(address) == ip)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_resolved_address_decides() {
        let none = Egress::default();
        let mine = Egress { loopback: true, ..Egress::default() };
        let all = Egress::everywhere();
        let some = Egress {
            allowed: ["broker.example", "other.example:9093", "10.1.0.0/16", "[2001:db8::1]:9092", "127.0.0.2:7"]
                .map(String::from)
                .to_vec(),
            ..Egress::default()
        };
        for (policy, host, port, ip, allowed) in [
            (&none, "broker.example", 9092, "93.184.216.34", false),
            (&none, "localhost", 9092, "127.0.0.1", false),
            (&mine, "localhost", 9092, "127.0.0.1", true),
            (&mine, "localhost", 9092, "::1", true),
            (&mine, "a.example", 9092, "::ffff:127.0.0.1", true),
            (&mine, "a.example", 9092, "::ffff:10.0.0.1", false),
            (&mine, "a.example", 9092, "10.0.0.1", false),
            (&all, "a.example", 9092, "10.0.0.1", true),
            (&all, "metadata", 80, "169.254.169.254", false),
            (&all, "metadata", 80, "::ffff:169.254.169.254", false),
            (&all, "metadata", 80, "64:ff9b::a9fe:a9fe", false),
            (&all, "metadata", 80, "::a9fe:a9fe", false),
            (&all, "metadata", 80, "fd00:ec2::254", false),
            (&all, "metadata", 80, "fe80::1", false),
            (&all, "metadata", 80, "100.100.100.200", false),
            (&all, "metadata", 80, "168.63.129.16", false),
            (&all, "metadata", 80, "64:ff9b:1:a9fe:a9:fe00::", false),
            (&all, "metadata", 80, "2002:a9fe:a9fe::1", false),
            (&none, "a.example", 80, "2002:7f00:1::1", false),
            (&all, "a.example", 80, "2002:808:808::1", true),
            (&some, "broker.example", 1, "8.8.8.8", true),
            (&some, "Broker.Example.", 1, "8.8.8.8", true),
            (&some, "xbroker.example", 1, "8.8.8.8", false),
            (&some, "broker.example", 1, "127.0.0.1", false),
            (&some, "broker.example", 1, "169.254.169.254", false),
            (&some, "other.example", 9093, "8.8.8.8", true),
            (&some, "other.example", 9092, "8.8.8.8", false),
            (&some, "x", 9092, "10.1.255.3", true),
            (&some, "x", 9092, "::ffff:10.1.255.3", true),
            (&some, "x", 9092, "10.2.0.0", false),
            (&some, "x", 9092, "2001:db8::1", true),
            (&some, "x", 9093, "2001:db8::1", false),
            (&some, "x", 7, "127.0.0.2", true),
            (&some, "x", 8, "127.0.0.2", false),
        ] {
            assert_eq!(policy.allows(host, port, ip.parse().unwrap()), allowed, "{host}:{port} at {ip}");
        }
    }
}
