package ctl

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

const envNewPassword = "HALO_NEW_PASSWORD"

var roles = []cobra.Completion{apitype.RoleAdmin, apitype.RoleOperator, apitype.RoleViewer}

const noUser = "haloctl user list shows the users"

func (a *app) userCommand() *cobra.Command {
	var role, passwordFile string
	add := a.call("add NAME", "let a person log in", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		password, err := a.newPassword(ctx, passwordFile, envNewPassword)
		if err != nil {
			return err
		}
		u, err := c.CreateUser(ctx, apitype.CreateUser{Username: args[0], Password: password, Role: role})
		if err != nil {
			return err
		}
		return a.show(u, func(io.Writer) error {
			a.say("%s may log in as %s.", u.Username, u.Role)
			return nil
		})
	})
	add.Long = `Add makes a user. The password is asked for, or comes from --password-file or
` + envNewPassword + `; the person changes it with haloctl user password.`
	add.Flags().StringVar(&role, "role", apitype.RoleViewer, "admin (everything), operator (changes nodes) or viewer (looks)")
	add.Flags().StringVar(&passwordFile, "password-file", "", "`file` that holds the new user's password (or "+envNewPassword+")")
	cobra.CheckErr(add.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp)))

	change := a.ofUser("role NAME ROLE", "make a user admin, operator or viewer; ends his logins", cobra.ExactArgs(2), func(ctx context.Context, c *client.Client, args []string) error {
		return a.updated(c.UpdateUser(ctx, args[0], apitype.UpdateUser{Role: &args[1]}), args[0], "is "+args[1]+" now")
	})
	first := change.ValidArgsFunction
	change.ValidArgsFunction = func(c *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return roles, cobra.ShellCompDirectiveNoFileComp
		}
		return first(c, args, part)
	}
	able := func(use, short string, disabled bool, done string) *cobra.Command {
		return a.ofUser(use, short, cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
			return a.updated(c.UpdateUser(ctx, args[0], apitype.UpdateUser{Disabled: &disabled}), args[0], done)
		})
	}
	return group("user", "people who may log in", add, change,
		a.call("list", "all users", cobra.NoArgs, a.userList),
		a.ofUser("show NAME", "one user", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
			u, err := c.User(ctx, args[0])
			if err != nil {
				return notFound(err, noUser)
			}
			return a.show(u, userTable(c.Now(), u).Write)
		}),
		able("disable NAME", "end a user's logins and let him make no others", true, "is disabled"),
		able("enable NAME", "let a disabled user log in again", false, "is enabled"),
		a.ofUser("remove NAME", "remove a user, and end his logins and API tokens", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
			return a.updated(c.DeleteUser(ctx, args[0]), args[0], "is removed")
		}),
		a.passwordCommand())
}

// ofUser is a call whose first argument is a user.
func (a *app) ofUser(use, short string, args cobra.PositionalArgs, run func(context.Context, *client.Client, []string) error) *cobra.Command {
	return a.completes(a.call(use, short, args, run), func(ctx context.Context, c *client.Client) ([]string, error) {
		return names(ctx, c.Users, func(u apitype.User) (string, string) { return u.Username, u.Role })
	})
}

func (a *app) passwordCommand() *cobra.Command {
	var newFile, oldFile string
	c := a.ofUser("password [NAME]", "change a password, your own or as admin another's", cobra.MaximumNArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		me, err := c.Me(ctx)
		if err != nil {
			return err
		}
		name := me.Name
		if len(args) > 0 {
			name = args[0]
		}
		var u apitype.UpdateUser
		self := me.Kind == "user" && me.Name == name
		if self {
			if u.CurrentPassword, err = a.secret(ctx, "Present password of "+name, oldFile, envPassword); err != nil {
				return err
			}
		}
		password, err := a.newPassword(ctx, newFile, envNewPassword)
		if err != nil {
			return err
		}
		u.Password = &password
		done := "has a new password; all logins have ended"
		if self {
			done += ": haloctl login begins a new one"
		}
		return a.updated(c.UpdateUser(ctx, name, u), name, done)
	})
	c.Long = `Password changes a password and ends all logins of that user. Of your own the
present one is asked for too (or comes from --present-password-file or
` + envPassword + `); the new one is asked for, or comes from --password-file or
` + envNewPassword + `.`
	c.Flags().StringVar(&newFile, "password-file", "", "`file` that holds the new password (or "+envNewPassword+")")
	c.Flags().StringVar(&oldFile, "present-password-file", "", "`file` that holds your present password (or "+envPassword+")")
	return c
}

func (a *app) updated(err error, name, done string) error {
	if err != nil {
		return notFound(err, noUser)
	}
	a.say("%s %s.", name, done)
	return nil
}

func (a *app) userList(ctx context.Context, c *client.Client, _ []string) error {
	list, err := c.Users(ctx)
	if err != nil {
		return err
	}
	return a.show(items[apitype.User]{list}, userTable(c.Now(), list...).Write)
}

func userTable(now time.Time, list ...apitype.User) *table.Table {
	t := table.New("NAME", "ROLE", "STATE", "LAST LOGIN", "MADE")
	for _, u := range list {
		state, last := "good", never
		if u.Disabled {
			state = "disabled"
		}
		if u.LastLogin != nil {
			last = table.Age(now, *u.LastLogin)
		}
		t.Row(u.Username, u.Role, state, last, table.Age(now, u.Created))
	}
	return t
}
