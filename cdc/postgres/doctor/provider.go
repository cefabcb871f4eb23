package doctor

import (
	"slices"
	"strings"

	"github.com/weirstream/weir/internal/pg"
)

// provider is who runs the server. It decides how a setting is changed and who grants the right to replicate; what is
// checked is the same everywhere.
type provider string

const (
	selfHosted provider = ""
	rds        provider = "Amazon RDS or Aurora"
	cloudSQL   provider = "Cloud SQL"
	alloyDB    provider = "AlloyDB"
	azure      provider = "Azure Database for PostgreSQL"
	supabase   provider = "Supabase"
	neon       provider = "Neon"
)

// byRole lists the roles that only one provider's servers have, the more special ones first.
var byRole = []struct {
	role string
	provider
}{
	{"alloydbsuperuser", alloyDB}, {"cloudsqlsuperuser", cloudSQL}, {"rds_superuser", rds}, {"azure_pg_admin", azure},
	{"supabase_admin", supabase}, {"neon_superuser", neon},
}

func providerRoles() (roles []string) {
	for _, r := range byRole {
		roles = append(roles, r.role)
	}
	return roles
}

func recognise(roles []string) provider {
	for _, r := range byRole {
		if slices.Contains(roles, r.role) {
			return r.provider
		}
	}
	return selfHosted
}

func (p provider) phrase() string {
	if p == selfHosted {
		return ""
	}
	return " (" + string(p) + ")"
}

func (p provider) walLevelFix() string {
	switch p {
	case rds:
		return "-- in the parameter group: rds.logical_replication = 1, then reboot the instance"
	case cloudSQL:
		return "-- in the instance's flags: cloudsql.logical_decoding = on (the instance restarts)"
	case alloyDB:
		return "-- in the instance's flags: alloydb.logical_decoding = on (the instance restarts)"
	case azure:
		return "-- in the server parameters: wal_level = logical, then restart the server"
	case neon:
		return "-- in the project's settings: enable logical replication (it cannot be switched off again)"
	case supabase:
		return "-- Supabase has wal_level = logical from the start: ask its support what changed it"
	}
	return "ALTER SYSTEM SET wal_level = 'logical';\n-- then restart the server"
}

// systemFix is how settings are changed: by SQL, or, where the provider keeps ALTER SYSTEM to itself, in its console.
func (p provider) systemFix(statements []string, restart bool) string {
	if p != selfHosted {
		for i, st := range statements {
			statements[i] = "-- in the provider's settings: " + strings.TrimSuffix(strings.TrimPrefix(st, "ALTER SYSTEM SET "), ";")
		}
		return strings.Join(statements, "\n")
	}
	end := "SELECT pg_reload_conf();"
	if restart {
		end = "-- then restart the server"
	}
	return strings.Join(statements, "\n") + "\n" + end
}

func (p provider) replicationFix(role string) string {
	if p == rds {
		return "GRANT rds_replication TO " + pg.Ident(role) + ";"
	}
	return "ALTER ROLE " + pg.Ident(role) + " REPLICATION;"
}

func (p provider) directHint() string {
	switch p {
	case supabase:
		return " (the host db.PROJECT.supabase.co, port 5432)"
	case neon:
		return " (the host name without -pooler)"
	}
	return ""
}
