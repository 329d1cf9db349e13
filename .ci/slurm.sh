#!/usr/bin/env bash
# Install and start a one-node SLURM with two fake GPUs (Debian packages; needs root). Idempotent.
# Recipe measured with SLURM 22.05: no accounting, cons_tres, GRES files that always exist.
set -euo pipefail

if ! command -v sbatch >/dev/null || ! command -v munged >/dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        slurmctld slurmd slurm-client munge
fi

host=$(hostname -s)
cpus=$(nproc)
memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 - 1024))
conf=/etc/slurm
mkdir -p "$conf" /var/spool/slurmctld /var/spool/slurmd /var/log/slurm /run/munge
grep -qw "$host" /etc/hosts || echo "127.0.0.1 $host" >>/etc/hosts

cat >"$conf/slurm.conf" <<CONF
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
ReturnToService=2
MinJobAge=300
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
NodeName=$host CPUs=$cpus RealMemory=$memory Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes=$host Default=YES MaxTime=240 State=UP
PartitionName=gpu Nodes=$host MaxTime=240 State=UP
CONF
printf 'Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n' >"$conf/gres.conf"

if [ ! -s /etc/munge/munge.key ]; then
    mkdir -p /etc/munge
    dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
fi
chown -R munge: /etc/munge /run/munge /var/lib/munge /var/log/munge
chmod 0700 /etc/munge
chmod 0400 /etc/munge/munge.key
chmod 0755 /run/munge

if timeout 5 sinfo -h -o '%T' 2>/dev/null | grep -qE 'idle|mixed|allocated'; then
    sinfo
    exit 0
fi

# Not up: start afresh. Nothing is asked of processes by name (a killed daemon may linger as a zombie), stale sockets go.
pkill -9 -x slurmd || true
pkill -9 -x slurmctld || true
pkill -9 -x munged || true
rm -f /run/munge/munge* /run/slurmctld.pid /run/slurmd.pid
runuser -u munge -- /usr/sbin/munged --force
slurmctld -c
slurmd

for _ in $(seq 30); do
    if timeout 5 sinfo -h -o '%T' 2>/dev/null | grep -qE 'idle|mixed|allocated'; then
        sinfo
        exit 0
    fi
    timeout 5 scontrol update nodename="$host" state=resume 2>/dev/null || true
    sleep 1
done
echo "SLURM did not come up; the last lines of its logs:" >&2
tail -n 20 /var/log/slurm/*.log >&2
exit 1
