package pg

import (
	"net/url"
	"slices"
	"strings"

	"github.com/weirstream/weir/internal/errs"
)

// jdbcParams are the parameters of a JDBC URL that mean the same to libpq, by their names there.
var jdbcParams = map[string]string{
	"user": "user", "password": "password", "sslmode": "sslmode", "sslcert": "sslcert", "sslkey": "sslkey", "sslrootcert": "sslrootcert",
	"sslpassword": "sslpassword", "options": "options", "connect_timeout": "connect_timeout", "target_session_attrs": "target_session_attrs",
}

// ParseJDBC reads the URL of a JDBC driver, jdbc:postgresql://HOST:PORT/DATABASE?..., or any other form that ParseURL
// takes. User and password, if they are given, count more than those in the URL. Schema is currentSchema's first, "" if it
// does not say. Parameters that only tune the driver are passed over.
func ParseJDBC(s, user, password string) (c *Config, schema string, err error) {
	rest, jdbc := strings.CutPrefix(s, "jdbc:")
	if system, _, ok := strings.Cut(rest, ":"); ok && jdbc && system != "postgresql" {
		return nil, "", errs.New(errs.NotBuiltYet, "connector 'jdbc' knows PostgreSQL, and %s is not built yet", system).
			WithHint("'url' = 'jdbc:postgresql://HOST:PORT/DATABASE'")
	}
	if jdbc {
		if rest, schema, err = libpqURL(rest, user); err != nil {
			return nil, "", err
		}
	}
	if c, err = ParseURL(rest); err != nil {
		return nil, "", err
	}
	if user != "" {
		c.pgx.User = user
	}
	if password != "" {
		c.SetPassword(password)
	}
	return c, schema, nil
}

// libpqURL turns what follows jdbc: into a URL for libpq. The user has to be in it already, because a password file is
// looked into by it.
func libpqURL(s, user string) (plain, schema string, err error) {
	s = strings.TrimPrefix(s, "postgresql:")
	if !strings.HasPrefix(s, "//") {
		s = "//localhost/" + strings.TrimPrefix(s, "/") // jdbc:postgresql:DATABASE
	}
	place, query, _ := strings.Cut(s, "?")
	given, err := url.ParseQuery(query)
	if err != nil {
		return "", "", errs.New(errs.BadURL, "the parameters of %s cannot be read", "jdbc:postgresql:"+Redact("postgresql:"+place)).WithHint("NAME=VALUE&NAME=VALUE, with %%20 for a space")
	}
	kept := url.Values{}
	for name, values := range given {
		v := values[len(values)-1]
		switch {
		case jdbcParams[name] != "":
			kept.Set(jdbcParams[name], v)
		case name == "ssl" && v != "false" && !given.Has("sslmode"):
			kept.Set("sslmode", "verify-full") // as the driver reads it
		case name == "targetServerType" && slices.Contains([]string{"primary", "master"}, v):
			kept.Set("target_session_attrs", "read-write")
		case name == "currentSchema":
			schema, _, _ = strings.Cut(v, ",")
			schema = strings.Trim(strings.TrimSpace(schema), `"`)
		}
	}
	if user != "" {
		kept.Set("user", user)
	}
	plain = "postgresql:" + place
	if len(kept) > 0 {
		plain += "?" + kept.Encode()
	}
	return plain, schema, nil
}
