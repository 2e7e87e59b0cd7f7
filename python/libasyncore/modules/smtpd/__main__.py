"""`python -m smtpd`."""
import smtpd

smtpd._main()
