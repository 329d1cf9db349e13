#!/usr/bin/env bash
# Install and start a SLURM with fake GPUs on this machine (Debian packages; needs root). Idempotent.
# Recipe measured with SLURM 22.05: no accounting, cons_tres, GRES files that always exist, memory enforced by polling.
# Two nodes on one machine: the host itself (partitions cpu and gpu), and a second slurmd that only partition `pair`
# reaches (both nodes), for jobs on several nodes and for nodes that fail.
set -euo pipefail

if ! command -v sbatch >/dev/null || ! command -v munged >/dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        slurmctld slurmd slurm-client munge
fi

host=$(hostname -s)
second=${host}b
cpus=$(nproc)
memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 - 1024))
conf=/etc/slurm
mkdir -p "$conf" /var/spool/slurmctld /var/spool/slurmd "/var/spool/slurmd-$second" /var/log/slurm /run/munge
grep -qw "$host" /etc/hosts || echo "127.0.0.1 $host" >>/etc/hosts

cat >"$conf/slurm.conf.new" <<CONF
ClusterName=boldmill
SlurmctldHost=$host
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=1,sched_interval=2
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=task=1
KillWait=30
SlurmdTimeout=20
ReturnToService=2
MinJobAge=300
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd-%n
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd-%n.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd-%n.pid
NodeName=$host NodeHostname=$host Port=17001 Weight=2 CPUs=$cpus RealMemory=$memory Gres=gpu:fake:2 State=UNKNOWN
NodeName=$second NodeHostname=$host Port=17002 Weight=1 CPUs=$cpus RealMemory=$memory Gres=gpu:fake:2 State=UNKNOWN
PartitionName=cpu Nodes=$host Default=YES MaxTime=240 State=UP
PartitionName=gpu Nodes=$host MaxTime=240 State=UP
PartitionName=pair Nodes=$host,$second MaxTime=240 State=UP
CONF
printf 'Name=gpu Type=fake File=/dev/null\nName=gpu Type=fake File=/dev/zero\n' >"$conf/gres.conf"
changed=yes
if cmp -s "$conf/slurm.conf.new" "$conf/slurm.conf"; then changed=no; fi
mv "$conf/slurm.conf.new" "$conf/slurm.conf"

if [ ! -s /etc/munge/munge.key ]; then
    mkdir -p /etc/munge
    dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
fi
chown -R munge: /etc/munge /run/munge /var/lib/munge /var/log/munge
chmod 0700 /etc/munge
chmod 0400 /etc/munge/munge.key
chmod 0755 /run/munge

up() { # both nodes answer
    [ "$(timeout 5 sinfo -h -N -p pair -o '%T' 2>/dev/null | grep -cE '^(idle|mixed|allocated)$')" = 2 ]
}

if [ "$changed" = no ] && up; then
    sinfo
    exit 0
fi

# Not up: start afresh. Nothing is asked of processes by name (a killed daemon may linger as a zombie), stale sockets go.
pkill -9 -x slurmd || true
pkill -9 -x slurmctld || true
pkill -9 -x munged || true
sleep 1
rm -f /run/munge/munge* /run/slurmctld.pid /run/slurmd*.pid
runuser -u munge -- /usr/sbin/munged --force
slurmctld -c
slurmd -N "$host"
slurmd -N "$second"

for _ in $(seq 30); do
    if up; then
        sinfo
        exit 0
    fi
    timeout 5 scontrol update nodename="$host,$second" state=resume 2>/dev/null || true
    sleep 1
done
echo "SLURM did not come up; the last lines of its logs:" >&2
tail -n 20 /var/log/slurm/*.log >&2
exit 1
