//! Names of addresses: `9.0.216.10.in-addr.arpa` (RFC 1035, 3.5) and `…ip6.arpa` (RFC 3596, 2.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address that the labels of a name spell; `None` where they spell none, or only the beginning of one.
pub fn address(labels: &[&str]) -> Option<IpAddr> {
    if let Some(inner) = labels.strip_suffix(&["in-addr", "arpa"]) {
        let [d, c, b, a] = inner else { return None };
        let number = |text: &&str| text.parse::<u8>().ok().filter(|number| number.to_string() == **text);
        return Some(Ipv4Addr::new(number(a)?, number(b)?, number(c)?, number(d)?).into());
    }
    let inner = labels.strip_suffix(&["ip6", "arpa"])?;
    if inner.len() != 32 {
        return None;
    }
    let mut bits = 0u128;
    for digit in inner.iter().rev() {
        let mut chars = digit.chars();
        let value = chars.next()?.to_digit(16).filter(|_| chars.next().is_none())?;
        bits = bits << 4 | u128::from(value);
    }
    Some(Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_addresses_are_read() {
        let read = |name: &str| address(&name.split('.').collect::<Vec<_>>()).map(|address| address.to_string());
        assert_eq!(read("9.0.216.10.in-addr.arpa").as_deref(), Some("10.216.0.9"));
        let six = "1.0.0.0.".to_string() + &"0.".repeat(20) + "8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(read(&six).as_deref(), Some("2001:db8::1"));
        for name in
            ["0.216.10.in-addr.arpa", "256.0.0.1.in-addr.arpa", "01.0.0.1.in-addr.arpa", "x.ip6.arpa", "arpa", "a.b"]
        {
            assert_eq!(read(name), None, "{name}");
        }
    }
}
