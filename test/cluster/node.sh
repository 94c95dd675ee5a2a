#!/usr/bin/env bash
# A node of the test cluster, from inside its namespaces: started by cluster.ts, ends when its first process ends.
#
# Its environment: NODE (its number), BASE (the cluster's folder, not below /etc or /var), BIN (the programs),
# API (the address of the API server, which is its router too), NODES (how many there may be).
set -euo pipefail
name=n$NODE dir=$BASE/n$NODE
mkdir -p "$dir"/{etc,etc.work,var,var.work,kubelet,containerd,cni,log,chiron}
hostname "$name"

# Bidirectional mounts need shared propagation; what a node mounts stays in its own namespace all the same.
mount --make-rshared /

# /etc, /var and /run of its own. What holds mounts or images lies on the disk itself: an overlay cannot lie on another.
for top in etc var; do mount -t overlay overlay -o "lowerdir=/$top,upperdir=$dir/$top,workdir=$dir/$top.work" "/$top"; done
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /etc/cni/net.d /var/lib/{kubelet,containerd,cni}
for folder in kubelet containerd cni; do
  mount --bind "$dir/$folder" "/var/lib/$folder"
  # Else every mount below it would show in $dir as well.
  mount --make-private "/var/lib/$folder"; mount --make-shared "/var/lib/$folder"
done
printf '127.0.0.1 localhost\n10.213.0.%d %s\n' $((10 + NODE)) "$name" >/etc/hosts
: >/etc/resolv.conf

# The kubelet insists on settings that belong to the whole machine: it is shown files that have them.
for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
  file=/run/setting.${setting//[\/=]/.}
  echo "${setting#*=}" >"$file"; mount --bind "$file" "/proc/sys/${setting%=*}"
done

until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done
ip link set lo up
ip addr add "10.213.0.$((10 + NODE))/24" dev eth0
ip link set eth0 up
ip route add default via "$API"
for other in $(seq "$NODES"); do
  [ "$other" = "$NODE" ] || ip route add "10.214.$other.0/24" via "10.213.0.$((10 + other))"
done
echo 1 >/proc/sys/net/ipv4/ip_forward

cat >/etc/cni/net.d/10-pods.conflist <<J
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.214.$NODE.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
J
cat >/etc/containerd.toml <<T
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE a score below 0 is refused, and runc fails.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
T
cat >/etc/kubelet.yaml <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $BASE/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $BASE/pki/$name.crt
tlsPrivateKeyFile: $BASE/pki/$name.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /chiron-$name       # two kubelets in one tree of cgroups clean up each other's pods
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
imageGCHighThresholdPercent: 100  # an image that was collected cannot be pulled again
evictionHard: {memory.available: 100Mi, nodefs.available: 100Mi, imagefs.available: 100Mi}
syncFrequency: 10s
Y

keep() { # NAME COMMAND...: run it, and again whenever it ends
  local log=$dir/log/$1.log; shift
  while :; do "$@" || true; echo "--- ended, started again"; sleep 1; done >>"$log" 2>&1 </dev/null &
}
keep containerd containerd --config /etc/containerd.toml
until ctr version >/dev/null 2>&1; do sleep 0.2; done
for image in "$BASE"/images/*.tar; do ctr -n k8s.io images import --no-unpack "$image" >/dev/null; done
keep kubelet "$BIN/kubelet" --config=/etc/kubelet.yaml --kubeconfig="$BASE/$name.kubeconfig" --root-dir=/var/lib/kubelet \
  --hostname-override="$name" --node-ip="10.213.0.$((10 + NODE))"
# The limits of conntrack are the whole machine's too, and cannot be written in here.
keep kube-proxy "$BIN/kube-proxy" --kubeconfig="$BASE/proxy.kubeconfig" --hostname-override="$name" --proxy-mode=iptables \
  --cluster-cidr=10.214.0.0/16 --conntrack-max-per-core=0 --conntrack-min=0
wait
