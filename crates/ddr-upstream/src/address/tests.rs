use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn public_addresses_are_public() {
    for text in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.0.1",
        "192.169.0.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "2001:4860:4860::8888",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
        "2002:101:101::1",
    ] {
        assert!(is_public(ip(text)), "{text}");
    }
}

#[test]
fn private_addresses_are_not() {
    for text in [
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "240.0.0.1",
        "::1",
        "fc00::1",
        "fd12:3456::1",
        "fec0::1",
        "100::1",
        "2001:db8::1",
        "2001::1",
        "3fff::1",
        "64:ff9b:1::1",
        "5f00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:0:10.0.0.1",
        "::10.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::1",
        "2002:c0a8:101::1",
    ] {
        assert_eq!(kind(ip(text)), Kind::Private, "{text}");
    }
}

#[test]
fn metadata_and_nobody_stand_apart() {
    for text in [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "febf::1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
    ] {
        assert_eq!(kind(ip(text)), Kind::Metadata, "{text}");
    }
    for text in ["0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "::", "ff02::1"] {
        assert_eq!(kind(ip(text)), Kind::Nobody, "{text}");
    }
    for text in ["::ffff:0.0.0.0", "::ffff:224.0.0.1"] {
        assert_eq!(kind(ip(text)), Kind::Nobody, "{text}");
    }
}

#[test]
fn admission_depends_on_the_settings_and_the_host() {
    let mut admission = Admission {
        private: false,
        endpoint_host: "registry.example".to_owned(),
        proxies: vec!["proxy.example".to_owned()],
    };
    assert!(admission.admits("other.example", ip("1.1.1.1")));
    assert!(!admission.admits("registry.example", ip("10.0.0.1")));
    assert!(!admission.admits("registry.example", ip("169.254.1.1")));
    assert!(admission.admits("proxy.example", ip("10.0.0.1")));
    admission.private = true;
    assert!(admission.admits("other.example", ip("10.0.0.1")));
    assert!(admission.admits("other.example", ip("127.0.0.1")));
    assert!(admission.admits("registry.example", ip("169.254.1.1")));
    assert!(!admission.admits("other.example", ip("169.254.169.254")));
    assert!(!admission.admits("other.example", ip("fe80::1")));
    assert!(!admission.admits("registry.example", ip("0.0.0.0")));
}
