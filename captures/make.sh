#!/bin/bash
# Makes sample.pcapng: real programs of two hosts (network namespaces) talking
# over a virtual link (a veth pair), captured at one end. Needs Linux, root and
# iproute2, ethtool, tcpdump, tshark, curl, dig, ping, nc, python3. Touches only the
# two namespaces that it makes. What each part is for stands in README.md.
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-sample.pcapng}

one=iovtee-one two=iovtee-two
work=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  ip netns del $one 2>/dev/null || true
  ip netns del $two 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

on() { ip netns exec "$@"; }
serve() { # a program in the background of a namespace
  ip netns exec "$@" >/dev/null 2>&1 &
  pids+=($!)
}
link() { # namespace, last digit of its addresses
  local host=$1 n=$2
  # A frame on the link is a frame on a wire: no segments larger than the MTU, no checksum or tag left to a card.
  on "$host" ethtool -K eth0 tx off rx off tso off gso off gro off sg off txvlan off rxvlan off >/dev/null 2>&1
  on "$host" ip link set lo up
  serve "$host" python3 "$work/vlan.py" eth0 vlan10 10
  until on "$host" ip link show vlan10 >/dev/null 2>&1; do sleep 0.1; done
  on "$host" ip link set vlan10 address 02:00:00:00:01:0$n mtu 1496 # with its tag a frame still has at most 1514 bytes
  on "$host" ip addr add 192.0.2.$n/24 brd + dev eth0
  on "$host" ip addr add 2001:db8::$n/64 dev eth0
  on "$host" ip addr add 198.51.100.$n/24 brd + dev vlan10
  on "$host" ip addr add 2001:db8:10::$n/64 dev vlan10
  on "$host" sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=0 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
}

cat >"$work/vlan.py" <<'PY'
"""An 802.1Q sub-interface, for kernels without one: a tap whose frames travel tagged on the link below."""
import fcntl, os, select, socket, struct, sys

below, name, vlan = sys.argv[1], sys.argv[2], int(sys.argv[3])
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0002 | 0x1000))  # TUNSETIFF, IFF_TAP | IFF_NO_PI
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
wire.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: where the kernel puts a received tag
wire.setsockopt(263, 23, 1)  # PACKET_IGNORE_OUTGOING
wire.bind((below, 0))
while True:
    ready, _, _ = select.select([tap, wire], [], [])
    try:
        if tap in ready:
            frame = os.read(tap, 65536)
            wire.send(frame[:12] + struct.pack("!HH", 0x8100, vlan) + frame[12:])
        if wire in ready:
            frame, extra, _, _ = wire.recvmsg(65536, 256)
            for level, kind, data in extra:
                status, _, _, _, _, tag, _ = struct.unpack("IIIHHHH", data)
                if (level, kind) == (263, 8) and status & 0x10 and tag & 0xFFF == vlan:  # TP_STATUS_VLAN_VALID
                    os.write(tap, frame)
    except OSError:
        pass  # either side is down
PY

ip netns add $one
ip netns add $two
ip link add eth0 netns $one address 02:00:00:00:01:01 type veth peer name eth0 netns $two address 02:00:00:00:01:02
link $one 1
link $two 2

# The capture begins before the link is up, so that it holds what hosts say when they come up.
on $one ip link set eth0 up
ip netns exec $one tcpdump -i eth0 -Z root --immediate-mode -U --time-stamp-precision=nano -w "$work/wire.pcap" 2>/dev/null &
tcpdump=$!
pids+=($tcpdump)
sleep 1
on $two ip link set eth0 up
on $two ip link set vlan10 up
on $one ip link set vlan10 up
sleep 3 # duplicate address detection

head -c 12000 /dev/urandom >"$work/page"
cat >"$work/server.py" <<'PY'
"""DNS, UDP echo, TCP echo and a multicast listener, on IPv4 and IPv6."""
import ipaddress, socket, socketserver, struct, threading

RECORDS = {1: ipaddress.ip_address("192.0.2.2").packed, 28: ipaddress.ip_address("2001:db8::2").packed}

def dns(query):
    end = query.index(0, 12) + 5
    kind = struct.unpack("!H", query[end - 4:end - 2])[0]
    data = RECORDS.get(kind)
    answer = struct.pack("!HHHIH", 0xC00C, kind, 1, 300, len(data)) + data if data else b""
    flags = 0x8580 if data else 0x8583
    return query[:2] + struct.pack("!HHHHH", flags, 1, 1 if data else 0, 0, 0) + query[12:end] + answer

class Dns(socketserver.BaseRequestHandler):
    def handle(self):
        self.request[1].sendto(dns(self.request[0]), self.client_address)

class UdpEcho(socketserver.BaseRequestHandler):
    def handle(self):
        self.request[1].sendto(self.request[0], self.client_address)

class TcpEcho(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := self.request.recv(65536):
            self.request.sendall(data)

def start(base, family, address, handler):
    class Server(socketserver.ThreadingMixIn, base):
        address_family, daemon_threads, allow_reuse_address = family, True, True
        def server_bind(self):
            if family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            super().server_bind()
    threading.Thread(target=Server(address, handler).serve_forever).start()

for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    start(socketserver.UDPServer, family, (any_address, 53), Dns)
    start(socketserver.UDPServer, family, (any_address, 7), UdpEcho)
    start(socketserver.TCPServer, family, (any_address, 7), TcpEcho)

group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
group.bind(("239.1.2.3", 5000))
group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.1.2.3") + socket.inet_aton("192.0.2.2"))
group6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
group6.bind(("ff05::1:3", 5000))
group6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, "ff05::1:3") + struct.pack("@I", socket.if_nametoindex("eth0")))
threading.Event().wait()
PY
cat >"$work/client.py" <<'PY'
"""Talks to server.py: echoes of many sizes, a chat, broadcast and multicast."""
import random, socket, sys

random.seed(1)
host, largest = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in host else socket.AF_INET

for turn in range(int(sys.argv[3])):
    udp = socket.socket(family, socket.SOCK_DGRAM)
    udp.settimeout(2)
    size = largest if turn == 0 else random.choice([1, 12, 18, 32, 64, 64, 100, 200])
    udp.sendto(random.randbytes(size), (host, 7))
    assert len(udp.recv(65536)) == size

tcp = socket.create_connection((host, 7), 2)
tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for turn in range(int(sys.argv[4])):
    line = b"line %d of a chat, %s\n" % (turn, b"." * random.randrange(40))
    tcp.sendall(line)
    received = b""
    while len(received) < len(line):
        received += tcp.recv(65536)
tcp.close()

if len(sys.argv) > 5:
    cast = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    cast.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    cast.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 4)
    cast.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("192.0.2.1"))
    cast6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    cast6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("eth0"))
    for turn in range(8):
        cast.sendto(b"to all of the subnet %d" % turn, ("192.0.2.255", 50001))
        cast.sendto(b"to everybody %d" % turn, ("192.0.2.255", 9))
        cast.sendto(b"to the group %d" % turn, ("239.1.2.3", 5000))
        cast6.sendto(b"to the group %d" % turn, ("ff05::1:3", 5000))
PY
serve $two python3 "$work/server.py"
serve $two python3 -m http.server 80 --bind 0.0.0.0 --directory "$work"
serve $two python3 -m http.server 8080 --bind :: --directory "$work"
serve $two nc -lk 2323
sleep 2

on $one ping -q -c 20 -i 0.02 192.0.2.2 >/dev/null
on $one ping -q -c 12 -i 0.02 2001:db8::2 >/dev/null
on $one ping -q -c 10 -i 0.02 198.51.100.2 >/dev/null
on $one ping -q -c 10 -i 0.02 2001:db8:10::2 >/dev/null
for size in 0 8 18 128 256 512 1024 1472; do on $two ping -q -c 1 -s $size 192.0.2.1 >/dev/null; done
for size in 0 128 512 1452; do on $two ping -q -c 1 -s $size 2001:db8::1 >/dev/null; done
on $one ping -q -c 1 -s 2000 192.0.2.2 >/dev/null # IPv4 fragments
on $one ping -q -c 1 -s 2000 2001:db8::2 >/dev/null # IPv6 fragments
on $one ping -q -b -c 4 -i 0.2 192.0.2.255 >/dev/null 2>&1 || true # broadcast
on $one ping -q -c 4 -i 0.2 ff02::1%eth0 >/dev/null || true # all nodes

on $one curl -sS -o "$work/got" http://192.0.2.2/page && cmp "$work/page" "$work/got"
head -c 9000 "$work/page" >"$work/page6"
on $one curl -sS -o "$work/got" "http://[2001:db8::2]:8080/page6" && cmp "$work/page6" "$work/got"
on $one curl -sS -o "$work/got" http://198.51.100.2/page6 && cmp "$work/page6" "$work/got"
on $one curl -sS -o /dev/null http://192.0.2.2/none || true

for guest in 1 2 3 4 5 6 7 8; do
  on $one dig +tries=1 @192.0.2.2 guest$guest.example A >/dev/null
  on $one dig +tries=1 @2001:db8::2 guest$guest.example AAAA >/dev/null
  on $one dig +tries=1 @198.51.100.2 guest$guest.example A >/dev/null
done
on $one dig +tries=1 @192.0.2.2 nobody.example MX >/dev/null

on $one python3 "$work/client.py" 192.0.2.2 1472 55 65 casts
on $one python3 "$work/client.py" 2001:db8::2 1452 40 45
on $one python3 "$work/client.py" 198.51.100.2 1468 25 25
on $one python3 "$work/client.py" 2001:db8:10::2 1448 12 12
echo "a line by netcat" | on $one nc -N 192.0.2.2 2323
echo "nobody listens" | on $one nc -u -w 1 192.0.2.2 4444 || true # port unreachable
on $one nc -z 192.0.2.2 4445 || true # connection refused
on $one nc -z 2001:db8::2 4445 || true
for host in 192.0.2.2 198.51.100.2; do # addresses forgotten and asked again
  on $one ip neigh flush all
  on $two ip neigh flush all
  on $one ping -q -c 1 $host >/dev/null
done
sleep 6 # neighbours' reachability confirmed
kill -INT $tcpdump
wait $tcpdump || true

# A virtual link carries frames shorter than 60 bytes; a card pads them with zeros (IEEE 802.3, "Pad field").
python3 - "$work/wire.pcap" "$work/padded.pcap" <<'PY'
import struct, sys
data = open(sys.argv[1], "rb").read()
out, at = bytearray(data[:24]), 24
while at < len(data):
    seconds, fraction, held, length = struct.unpack_from("<IIII", data, at)
    assert held == length, "a frame was cut"
    frame = data[at + 16:at + 16 + held].ljust(60, b"\0")
    out += struct.pack("<IIII", seconds, fraction, len(frame), len(frame)) + frame
    at += 16 + held
open(sys.argv[2], "wb").write(out)
PY
editcap -F pcapng "$work/padded.pcap" "$out"

# Every checksum right, nothing malformed.
checks=(-o ip.check_checksum:TRUE -o tcp.check_checksum:TRUE -o udp.check_checksum:TRUE)
bad=$(tshark -r "$out" "${checks[@]}" -Y '_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0 || icmp.checksum.status == 0 || icmpv6.checksum.status == 0' 2>/dev/null)
if [ -n "$bad" ]; then
  echo "bad frames:" "$bad" >&2
  exit 1
fi

count() { printf '| %s | %d |\n' "$1" "$(tshark -r "$out" -Y "$2" -T fields -e frame.number 2>/dev/null | wc -l)"; }
echo '| frames | count |'
echo '| --- | ---: |'
count 'all' frame
count 'ARP' arp
count 'IPv4' ip
count 'IPv6' ipv6
count 'TCP' 'tcp && !icmp && !icmpv6'
count 'UDP' 'udp && !icmp && !icmpv6'
count 'ICMP' icmp
count 'ICMPv6' icmpv6
count 'IGMP' igmp
count 'IP fragments' 'ip.flags.mf == 1 || ip.frag_offset > 0 || ipv6.fraghdr'
count 'VLAN 10 (802.1Q)' 'vlan.id == 10'
count 'broadcast' 'eth.dst == ff:ff:ff:ff:ff:ff'
count 'multicast' 'eth.dst.ig == 1 && eth.dst != ff:ff:ff:ff:ff:ff'
count '60 bytes' 'frame.len == 60'
count '61 to 127 bytes' 'frame.len > 60 && frame.len < 128'
count '128 to 1513 bytes' 'frame.len >= 128 && frame.len < 1514'
count '1514 bytes' 'frame.len == 1514'
